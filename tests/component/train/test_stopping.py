"""All ranks stop and save together, whoever was told."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor, Message, take_over
from tests.component.train.ranks import SCRIPTS, Forge, read_values, until

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "endless.py"


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("pause_s", [0.0, 0.3], ids=["short steps", "long steps"])
def test_all_ranks_stop_at_the_same_step(
    forge: Forge, tmp_path: Path, told: int, pause_s: float
) -> None:
    gang = forge.start(SCRIPT, tmp_path, str(pause_s), ranks=2)
    gang.until_said("begun")

    gang.signal(signal.SIGTERM, told)
    gang.succeed()

    assert gang.said("stopped", 0) == gang.said("stopped", 1)
    step, is_stopped = gang.said("stopped").split()
    assert is_stopped == "True"
    assert "went on" not in gang.output()
    ready = list((tmp_path / "trainmaster-runs/1/checkpoints").iterdir())
    assert [path.name[:18] for path in ready] == [f"ready-{int(step):012d}"]


def test_a_stop_by_the_supervisor_is_obeyed_after_a_checkpoint(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    alive_at_commit: list[bool] = []

    def answer(message: Message) -> Message:
        alive_at_commit.extend(is_alive(pid) for pid in gang.pids[:1])
        return take_over(message)

    supervisor.answer = answer
    gang = forge.start(
        SCRIPT, supervisor.folder, "0.001", ranks=2, description=supervisor.describe_run()
    )
    gang.until_said("begun")

    supervisor.say({"op": "stop", "reason": "PauseRequested", "grace_seconds": 30})
    gang.succeed()

    assert alive_at_commit == [True]
    committed = supervisor.of_kind("commit")
    assert [str(message["step"]) for message in committed] == [gang.said("stopped").split()[0]]
    assert committed[0]["metrics"].keys() == {"loss"}


def test_a_wish_for_a_checkpoint_is_granted_once(forge: Forge, supervisor: FakeSupervisor) -> None:
    gang = forge.start(
        SCRIPT, supervisor.folder, "0.001", ranks=2, description=supervisor.describe_run()
    )
    gang.until_said("begun")

    supervisor.say({"op": "checkpoint"})
    until(lambda: supervisor.of_kind("commit"), "a checkpoint")
    step = supervisor.of_kind("commit")[0]["step"]
    spool = supervisor.folder / "spool" / "0.jsonl"
    until(lambda: read_values(spool, "loss")[-1][0] > step + 50, "the training goes on")

    assert len(supervisor.of_kind("commit")) == 1


def test_checkpoints_are_made_every_so_many_steps(forge: Forge, supervisor: FakeSupervisor) -> None:
    policy = {"every_steps": 20, "every_seconds": None}
    description = supervisor.describe_run(checkpoint=policy)
    gang = forge.start(SCRIPT, supervisor.folder, "0.001", ranks=2, description=description)

    until(lambda: len(supervisor.of_kind("commit")) >= 3, "three checkpoints")

    gang.signal(signal.SIGKILL)
    assert [message["step"] for message in supervisor.of_kind("commit")][:3] == [20, 40, 60]


def test_checkpoints_are_made_every_so_many_seconds(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    began = time.monotonic()
    description = supervisor.describe_run(checkpoint={"every_steps": None, "every_seconds": 1})
    gang = forge.start(SCRIPT, supervisor.folder, "0.001", ranks=2, description=description)

    until(lambda: len(supervisor.of_kind("commit")) >= 2, "two checkpoints")

    gang.signal(signal.SIGKILL)
    assert time.monotonic() - began >= 2.0


def test_no_step_waits_for_a_slow_disk_when_the_time_for_the_next_checkpoint_comes(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    supervisor.answer = lambda _message: None  # it takes long to take over the first one
    description = supervisor.describe_run(checkpoint={"every_steps": None, "every_seconds": 0.2})
    gang = forge.start(SCRIPT, supervisor.folder, "0.001", description=description)
    until(lambda: supervisor.of_kind("commit"), "a checkpoint is handed over")
    spool = supervisor.folder / "spool" / "0.jsonl"
    (first,) = supervisor.of_kind("commit")
    later = first["step"] + 700  # at a millisecond and more each, the time has come and gone

    until(lambda: read_values(spool, "loss")[-1][0] > later, "the training goes on")

    assert supervisor.of_kind("commit") == [first]
    supervisor.answer = take_over
    supervisor.say(take_over(first))
    until(lambda: len(supervisor.of_kind("commit")) >= 2, "the next one")
    gang.signal(signal.SIGKILL)


def test_a_checkpoint_that_is_refused_fails_the_run(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    supervisor.answer = lambda message: {
        "op": "refused",
        "request": message["request"],
        "message": "the disk is full",
    }
    description = supervisor.describe_run(checkpoint={"every_steps": 5, "every_seconds": None})
    gang = forge.start(SCRIPT, supervisor.folder, "0.001", ranks=2, description=description)

    codes = gang.wait()

    assert 0 not in codes
    assert "the disk is full" in gang.output()


def is_alive(pid: int) -> bool:
    """Return whether there is such a process, which has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z" and os.getpid() > 0
