"""The job environment is made once, whole, and again when its recipe changes."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from workers.node import job_environment
from workers.node.job_environment import (
    EnvironmentFailed,
    Recipe,
    ensure_environment,
    find_accelerator,
    is_ready,
    plan_recipe,
)

Say = Callable[[str], None]


class Steps:
    """Stands in for the processes: notes each step, makes the interpreter, fails when told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: list[str] = []
        self.failing = ""

    def __call__(self, title: str, command: Sequence[str], *, log: Path, say: Say) -> None:
        log.write_text("")
        if title == self.failing:
            raise EnvironmentFailed("told to fail")
        self.done.append(title)
        if title == "virtual environment":
            (self.path / "bin").mkdir(parents=True, exist_ok=True)
            (self.path / "bin" / "python").touch()


@pytest.fixture
def sdk(tmp_path: Path) -> Path:
    """A folder that looks like the SDK."""
    folder = tmp_path / "sdk"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the environment goes."""
    return tmp_path / "environment"


@pytest.fixture
def steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The steps that were taken, instead of minutes of installing."""
    steps = Steps(path)
    monkeypatch.setattr(job_environment, "_run_step", steps)
    return steps


@pytest.fixture
def recipe(sdk: Path) -> Recipe:
    """The CPU recipe."""
    return plan_recipe("cpu", platform="linux", sdk=sdk)


@pytest.mark.parametrize(
    ("accelerator", "platform", "torch", "index"),
    [
        pytest.param(
            "cpu", "linux", "torch==2.13.0+cpu", job_environment.CPU_INDEX, id="the CPU build"
        ),
        pytest.param("cuda", "linux", "torch===2.13.0", None, id="never a local +cpu wheel"),
        pytest.param("cpu", "darwin", "torch===2.13.0", None, id="one build for all"),
    ],
)
def test_torch_is_pinned_to_one_exact_build(
    sdk: Path, accelerator: str, platform: str, torch: str, index: str | None
) -> None:
    recipe = plan_recipe(accelerator, platform=platform, sdk=sdk)

    assert (recipe.torch, recipe.torch_index) == (torch, index)


def test_torch_alone_may_come_from_its_own_index(path: Path, sdk: Path, recipe: Recipe) -> None:
    commands = [command for _, command in job_environment._plan_steps(path, recipe, sdk)]

    indexed = [command for command in commands if job_environment.CPU_INDEX in command]

    assert len(indexed) == 1
    assert indexed[0][-2:] == ["--no-deps", "torch==2.13.0+cpu"]


def test_the_second_run_has_nothing_to_do(
    path: Path, sdk: Path, recipe: Recipe, steps: Steps
) -> None:
    first = ensure_environment(path, recipe, sdk=sdk)
    taken = list(steps.done)
    second = ensure_environment(path, recipe, sdk=sdk)

    assert (first, second) == (True, False)
    assert steps.done == taken
    assert len(taken) == 4


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_what_was_interrupted_is_made_again_from_nothing(
    path: Path, sdk: Path, recipe: Recipe, steps: Steps, failing: int
) -> None:
    titles = [title for title, _ in job_environment._plan_steps(path, recipe, sdk)]
    steps.failing = titles[failing]
    with pytest.raises(EnvironmentFailed):
        ensure_environment(path, recipe, sdk=sdk)
    steps.failing, steps.done = "", []

    assert not is_ready(path, recipe)
    assert ensure_environment(path, recipe, sdk=sdk)
    assert steps.done == titles


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda recipe: replace(recipe, torch="torch==9"), id="another torch"),
        pytest.param(lambda recipe: replace(recipe, packages=("numpy==9",)), id="another pin"),
        pytest.param(lambda recipe: replace(recipe, sdk="elsewhere"), id="another SDK"),
    ],
)
def test_a_changed_recipe_makes_it_again(
    path: Path, sdk: Path, recipe: Recipe, steps: Steps, change: Callable[[Recipe], Recipe]
) -> None:
    ensure_environment(path, recipe, sdk=sdk)

    assert is_ready(path, recipe)
    assert not is_ready(path, change(recipe))


def test_an_environment_that_was_moved_or_lost_its_interpreter_is_not_ready(
    path: Path, sdk: Path, recipe: Recipe, steps: Steps
) -> None:
    ensure_environment(path, recipe, sdk=sdk)
    moved = path.rename(path.with_name("moved"))

    assert not is_ready(moved, recipe)
    moved.rename(path)
    assert is_ready(path, recipe)
    (path / "bin" / "python").unlink()
    assert not is_ready(path, recipe)


@pytest.mark.parametrize("stamp", ["", "{", json.dumps(["recipe"]), "\0"])
def test_a_damaged_stamp_is_no_stamp(path: Path, recipe: Recipe, stamp: str) -> None:
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").touch()
    (path / job_environment.STAMP).write_text(stamp)

    assert not is_ready(path, recipe)


@pytest.mark.parametrize(
    ("printed", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Failed to establish a new connection: [Errno -2]", "no network"),
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "no such build"),
        ("ensurepip is not available", "apt install python3-venv"),
        ("something else", "see the output"),
    ],
)
def test_a_failed_step_says_what_to_do_and_shows_the_output(
    tmp_path: Path, printed: str, advice: str
) -> None:
    command = [sys.executable, "-c", f"print({printed!r}); raise SystemExit(3)"]

    with pytest.raises(EnvironmentFailed) as failure:
        job_environment._run_step("torch", command, log=tmp_path / "log", say=print)

    assert advice in str(failure.value)
    assert printed in str(failure.value)


def test_a_long_step_says_that_it_is_still_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_environment, "STILL_AT_IT_S", 0.05)
    said: list[str] = []
    # The step waits until it has been mentioned: this test takes as long as it must.
    gate = tmp_path / "gate"
    program = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    command = [sys.executable, "-c", program]

    def say(line: str) -> None:
        said.append(line)
        if "still at it" in line:
            gate.touch()

    job_environment._run_step("torch", command, log=tmp_path / "log", say=say)

    assert any("still at it" in line for line in said)


def test_the_accelerator_is_one_of_three_words() -> None:
    assert find_accelerator("cpu") == "cpu"
    assert find_accelerator("cuda") == "cuda"
    assert find_accelerator("auto") in {"cpu", "cuda"}
    with pytest.raises(EnvironmentFailed, match="auto, cpu, cuda"):
        find_accelerator("tpu")
