"""A run off the service: described by a file of one's own or by nothing, kept in a folder."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainmaster import run as run_module
from trainmaster.run import Run, RunError, current_run

SDK = Path(run_module.__file__).parent
STANDS_ALONE = [SDK / "run.py", *SDK.glob("_*.py")]

Begin = Callable[..., Run]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Start a run as a fresh process would, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def begin(description: Any = None, defaults: Any = None, **places: str) -> Run:
        monkeypatch.setattr(run_module, "_current", None)
        if description is not None:
            text = description if isinstance(description, str) else json.dumps(description)
            (tmp_path / "run.json").write_text(text)
            monkeypatch.setenv("TRAINMASTER_RUN", str(tmp_path / "run.json"))
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        return current_run(defaults)

    yield begin
    monkeypatch.setattr(run_module, "_current", None)


def test_a_process_has_one_run(begin: Begin) -> None:
    run = begin()

    assert current_run() is run
    assert (run.rank, run.world_size, run.is_supervised) == (0, 1, False)


def test_torchrun_says_which_rank_we_are(begin: Begin) -> None:
    run = begin(RANK="3", WORLD_SIZE="4", LOCAL_RANK="1")

    assert (run.rank, run.world_size, run.local_rank) == (3, 4, 1)


def test_the_job_overrides_the_defaults(begin: Begin) -> None:
    run = begin({"config": {"lr": 0.5}}, defaults={"lr": 0.1, "epochs": 3})

    assert run.config == {"lr": 0.5, "epochs": 3}


def test_a_missing_setting_says_where_to_put_it(begin: Begin) -> None:
    with pytest.raises(KeyError, match="put it into the job's config"):
        begin().config["lr"]

    assert begin().config.get("lr") is None


def test_inputs_are_found_beside_the_file_that_names_them(begin: Begin, tmp_path: Path) -> None:
    run = begin({"inputs": {"data": "digits.npz", "other": "/elsewhere/x"}})

    assert run.inputs == {"data": tmp_path / "digits.npz", "other": Path("/elsewhere/x")}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        pytest.param("{", "cannot read", id="no JSON"),
        pytest.param("[]", "not a JSON object", id="no object"),
        pytest.param({"version": 2}, "install a newer trainmaster", id="a newer version"),
    ],
)
def test_a_description_that_cannot_be_used_is_an_error(
    begin: Begin, description: Any, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        begin(description)


def test_metrics_go_to_a_numbered_folder_and_to_the_terminal(
    begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trainmaster-runs" / "7").mkdir(parents=True)
    run = begin()

    run.log(1, {"train/loss": 0.5}, lr=0.1)

    line = json.loads((tmp_path / "trainmaster-runs/8/metrics.jsonl").read_text())
    assert (line["step"], line["values"]) == (1, {"train/loss": 0.5, "lr": 0.1})
    assert "step 1  train/loss 0.5  lr 0.1" in capsys.readouterr().out


def test_the_terminal_is_spared_what_comes_too_often(
    begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin()

    for step in range(200):
        run.log(step, loss=1.0)
    run.log(200, {"val/loss": 2.0})

    shown = capsys.readouterr().out
    assert shown.count("  loss 1") < 20
    assert "step 200  val/loss 2" in shown
    assert len((tmp_path / "trainmaster-runs/1/metrics.jsonl").read_text().splitlines()) == 201


def test_asking_makes_no_folder(begin: Begin, tmp_path: Path) -> None:
    run = begin()

    asked = (run.should_stop(), run.checkpoint_requested(), run.latest_checkpoint())
    run.progress(1, 10)

    assert asked == (False, False, None)
    assert list(tmp_path.iterdir()) == []


def test_only_rank_0_keeps_records(begin: Begin, tmp_path: Path) -> None:
    run = begin(RANK="1", WORLD_SIZE="2")

    run.log(1, loss=0.5)

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match=r"if run\.rank == 0"):
        run.checkpoint_dir()


def test_a_later_run_resumes_what_an_earlier_one_committed(begin: Begin, tmp_path: Path) -> None:
    first = begin()
    for step in (1, 2, 3):
        folder = first.checkpoint_dir()
        (folder / "state.txt").write_text(str(step))
        committed = first.commit_checkpoint(folder, step, loss=1 / step)
    newest = first.latest_checkpoint()

    second = begin({"resume": "trainmaster-runs/1"}).latest_checkpoint()

    assert newest is not None
    assert second is not None
    assert newest.path == committed.path == second.path
    assert (second.step, (second.path / "state.txt").read_text()) == (3, "3")
    assert len(list((tmp_path / "trainmaster-runs/1/checkpoints").iterdir())) == 2


def test_a_folder_of_ones_own_is_not_committed(begin: Begin, tmp_path: Path) -> None:
    run = begin()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")

    with pytest.raises(RunError, match=r"run\.checkpoint_dir\(\) gave"):
        run.commit_checkpoint(tmp_path / "mine", 1)


def test_a_checkpoint_cannot_be_ranked_by_text(begin: Begin) -> None:
    run = begin()

    with pytest.raises(TypeError, match="accuracy is a str"):
        run.commit_checkpoint(run.checkpoint_dir(), 1, accuracy="good")


def test_importing_it_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]);"
        "import trainmaster.run;"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(tops - set(sys.stdlib_module_names) - {'trainmaster'}))"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(SDK.parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", STANDS_ALONE, ids=lambda path: path.name)
def test_jobs_with_an_old_python_can_read_it(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
