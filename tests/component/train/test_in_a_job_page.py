"""The page docs/in-a-job.md: its scripts run, its commands print what it shows."""

import os
from pathlib import Path

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import JOB_PYTHON, Forge, read_values
from tests.docs.pages import COMMAND_LANGUAGES, ROOT, parse_blocks
from tests.docs.sessions import run_steps

pytestmark = pytest.mark.torch

PAGE = "docs/in-a-job.md"
BLOCKS = parse_blocks(PAGE, (ROOT / PAGE).read_text(encoding="utf-8"))
FILES = {block.marker: block.text for block in BLOCKS if block.language in ("python", "json")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file that the page shows."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_file_of_the_page_has_a_name() -> None:
    assert set(FILES) == {"train.py", "evaluate.py", "foreign.py", "mine.json"}


def test_the_commands_do_as_shown(folder: Path) -> None:
    steps = [
        step for block in BLOCKS if block.language in COMMAND_LANGUAGES for step in block.steps
    ]
    environment = {"PATH": f"{JOB_PYTHON.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    outcomes = run_steps(steps, folder=folder, environment=environment, timeout_s=120)

    assert len(outcomes) == 3
    assert all(outcome.is_as_shown for outcome in outcomes), "\n\n".join(map(str, outcomes))


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "foreign.py"])
def test_the_scripts_run_under_a_supervisor(
    forge: Forge, supervisor: FakeSupervisor, folder: Path, script: str
) -> None:
    ranks = 1 if script == "foreign.py" else 2
    description = supervisor.describe_run()

    forge.run(folder / script, supervisor.folder, ranks=ranks, description=description)

    name = "loss" if script == "train.py" else "train/loss"
    curve = read_values(supervisor.folder / "spool" / "0.jsonl", name)
    assert curve[-1][1] < 0.5 * curve[0][1]
    assert supervisor.of_kind("commit")[-1]["step"] == curve[-1][0]


def test_the_framework_of_ones_own_resumes(forge: Forge, folder: Path) -> None:
    (folder / "run.json").write_text("{}")
    forge.run(folder / "foreign.py", folder, description={"config": {"steps": 50}})

    forge.run(folder / "foreign.py", folder, description={"resume": "trainmaster-runs/1"})

    curve = read_values(folder / "trainmaster-runs/2/metrics.jsonl", "train/loss")
    assert [step for step, _ in curve] == list(range(51, 201))


def test_the_measured_accuracy_is_listed_with_the_checkpoint(
    forge: Forge, supervisor: FakeSupervisor, folder: Path
) -> None:
    description = supervisor.describe_run()

    forge.run(folder / "evaluate.py", supervisor.folder, ranks=2, description=description)

    assert supervisor.of_kind("commit")[-1]["metrics"]["test/accuracy"] > 0.9
