"""The same script under `python`, under `torchrun` and under a supervisor, and what it leaves."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import JOB_PYTHON, SCRIPTS, Forge, read_lines, read_values

pytestmark = pytest.mark.torch

EXAMPLE = SCRIPTS / "design_example.py"
RECORDS = SCRIPTS / "records.py"


def run_command(folder: Path, *command: str | Path) -> str:
    """Run a command of the job environment as a user would in a terminal; return its output."""
    folder.mkdir()
    (folder / "run.json").write_text('{"config": {"lr": 0.01}}')
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "TRAINMASTER_RUN": "run.json",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_designs_example_learns_the_same_wherever_it_runs(
    forge: Forge, supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    torchrun = (JOB_PYTHON.parent / "torchrun", "--standalone", "--nproc-per-node")
    run_command(tmp_path / "python", JOB_PYTHON, EXAMPLE)
    run_command(tmp_path / "one", *torchrun, "1", EXAMPLE)
    run_command(tmp_path / "two", *torchrun, "2", EXAMPLE)
    curves: dict[tuple[str, int], Any] = {
        (name, ranks): read_values(tmp_path / name / "trainmaster-runs/1/metrics.jsonl", "loss")
        for name, ranks in (("python", 1), ("one", 1), ("two", 2))
    }
    for ranks in (1, 2):
        spool = supervisor.folder / "spool" / "0.jsonl"
        description = supervisor.describe_run(config={"lr": 0.01})
        forge.run(EXAMPLE, supervisor.folder, ranks=ranks, description=description)
        curves["supervised", ranks] = read_values(spool, "loss")
        spool.unlink()

    assert len(curves["python", 1]) == 16
    assert curves["python", 1] == curves["one", 1] == curves["supervised", 1]
    assert curves["two", 2] == curves["supervised", 2]


def test_a_supervised_run_leaves_metrics_and_a_last_checkpoint(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    description = supervisor.describe_run(config={"lr": 0.125})
    gang = forge.run(RECORDS, supervisor.folder, "live", ranks=2, description=description)

    *lines, sent = read_lines(supervisor.folder / "spool" / "0.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert sent["step"] == 4
    assert sent["values"]["comm/prediction_error"] == pytest.approx(0, abs=1e-9)
    assert lines[0]["values"].keys() == {"train/loss", "lr", "bad"}
    assert lines[0]["values"]["lr"] == 0.125
    assert not (supervisor.folder / "spool" / "1.jsonl").exists()
    (commit,) = supervisor.of_kind("commit")
    assert commit["step"] == 4
    assert commit["metrics"].keys() == {"train/loss", "lr", "test/accuracy"}
    progress = supervisor.of_kind("progress")[-1]
    assert (progress["step"], progress["total_steps"]) == (4, 4)
    assert gang.said("seen") == "4.0 epoch 0 [0, 1, 2]"
    assert gang.said("seen", 1) == "4.0 epoch 0 [3, 4]"


def test_a_checkpoint_says_what_it_is(forge: Forge, supervisor: FakeSupervisor) -> None:
    description = supervisor.describe_run(config={"lr": 0.125})
    forge.run(RECORDS, supervisor.folder, "live", ranks=2, description=description)

    (files,) = (supervisor.folder / "checkpoints").glob("ready-*/files")

    meta = json.loads((files / "meta.json").read_text())
    assert {path.name for path in files.iterdir()} == {
        "model.safetensors",
        "state.pt",
        "meta.json",
    }
    assert (meta["step"], meta["world_size"], meta["models"]) == (4, 2, ["model"])
    assert meta["facts"] == {"classes": ["a", "b"]}
    assert meta["metrics"]["test/accuracy"] == 0.75
    assert meta["versions"]["torch"].startswith("2.")
    # The names are the bare module's: an 8-byte length, then JSON.
    assert b'"weight"' in (files / "model.safetensors").read_bytes()[:200]


def test_nothing_is_left_of_the_group_when_training_is_done(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    """Threads of a group that outlive it abort the process at its end, now and then."""
    gang = forge.run(
        RECORDS, supervisor.folder, "live", ranks=2, description=supervisor.describe_run()
    )

    assert [gang.said("gloo", rank) for rank in (0, 1)] == ["0", "0"]
    assert [gang.said("usable", rank) for rank in (0, 1)] == ["(1, 1)", "(1, 1)"]


def test_what_was_logged_before_a_kill_is_on_disk(forge: Forge, supervisor: FakeSupervisor) -> None:
    gang = forge.start(
        RECORDS, supervisor.folder, "die", ranks=1, description=supervisor.describe_run()
    )

    assert gang.wait() == [-9]
    spool = supervisor.folder / "spool" / "0.jsonl"
    assert [step for step, _ in read_values(spool, "train/loss")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"parallel": {"shard": 2}}, "UnfitLayout", "make `workers` their product"),
        ({"sync": {"mode": "gossip"}}, "UnsupportedMode", "sync.mode = gossip"),
        ({"sync": {"compression": "int8"}}, "UnsupportedMode", "compression = int8"),
    ],
)
def test_a_mode_that_is_not_there_is_refused_by_name(
    forge: Forge, tmp_path: Path, more: dict[str, Any], error: str, message: str
) -> None:
    gang = forge.start(EXAMPLE, tmp_path, description={"config": {"lr": 0.1}, **more})

    assert gang.wait() == [1]
    assert f"{error}: " in gang.output()
    assert message in gang.output()


def test_parallel_and_sync_as_the_service_writes_them_are_accepted(
    forge: Forge, tmp_path: Path
) -> None:
    description = {
        "config": {"lr": 0.1},
        "parallel": {"data": 2, "shard": 1, "tensor": 1, "pipeline": 1},
        "sync": {"mode": "allreduce", "compression": "none"},
        "checkpoint": {"every_steps": None, "every_seconds": None, "keep_last": 2},
    }

    forge.run(EXAMPLE, tmp_path, ranks=2, description=description)


def test_a_checkpoint_of_another_model_says_that_it_does_not_fit(
    forge: Forge, tmp_path: Path
) -> None:
    forge.run(RECORDS, tmp_path, "live")

    gang = forge.start(
        EXAMPLE,
        tmp_path,
        description={"config": {"lr": 0.1}, "resume": "trainmaster-runs/1"},
    )

    assert gang.wait() == [1]
    assert "the checkpoint of step 4 does not fit the model" in gang.output()


def test_a_script_that_knows_nothing_of_us_runs_beside_us(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    gang = forge.run(
        SCRIPTS / "plain_torch.py",
        supervisor.folder,
        ranks=2,
        description=supervisor.describe_run(),
    )

    assert [gang.said("total", rank) for rank in (0, 1)] == ["3.0 2", "3.0 2"]
    assert supervisor.heard == []


def test_importing_computes_nothing_and_starts_no_thread(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, trainmaster.train;"
        "print(len(list(pathlib.Path('/proc/self/task').iterdir())),"
        "'torch._dynamo' in sys.modules, 'httpx' in sys.modules,"
        "sys.modules['trainmaster.run']._current)"
    )

    assert run_command(tmp_path / "here", JOB_PYTHON, "-c", code) == "1 True False None\n"
