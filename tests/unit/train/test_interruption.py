"""Where a rank that is to be killed for a verification asks for a checkpoint, and dies."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trainmaster._interruption import Interruption
from trainmaster._wishes import Wishes

PLAN = {"save_at_step": 4, "kill_at_step": 6}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def wishes() -> Wishes:
    """What the rank has been asked to do."""
    return Wishes()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Where checkpoints of this machine are."""
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def interruption(
    wishes: Wishes, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> Interruption:
    """One that ends in an exception."""

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGKILL)
        raise Killed

    monkeypatch.setattr(os, "kill", kill)
    return Interruption(PLAN, checkpoints, wishes)


def test_a_checkpoint_is_asked_for_once(interruption: Interruption, wishes: Wishes) -> None:
    asked = []
    for step in (1, 3, 4, 5):
        interruption.reach(step)
        asked.append(wishes.is_checkpoint_wanted)
        wishes.is_checkpoint_wanted = False

    assert asked == [False, False, True, False]


def test_it_dies_at_its_step_once_there_is_a_checkpoint(
    interruption: Interruption, checkpoints: Path
) -> None:
    (checkpoints / "ready-000000000004-aa").mkdir()

    interruption.reach(5)
    with pytest.raises(Killed):
        interruption.reach(6)


def test_without_a_checkpoint_it_goes_on(interruption: Interruption, checkpoints: Path) -> None:
    interruption.reach(6)
    (checkpoints / "ready-000000000007-aa").mkdir()

    with pytest.raises(Killed):
        interruption.reach(9)


def test_a_checkpoint_that_is_on_its_way_is_waited_for(
    interruption: Interruption, checkpoints: Path
) -> None:
    staged = checkpoints / "tmp-0-abc"
    staged.mkdir()
    later = threading.Timer(0.05, staged.rename, [checkpoints / "ready-000000000004-aa"])
    later.start()

    with pytest.raises(Killed):
        interruption.reach(6)


def test_one_that_never_comes_is_not_waited_for_for_ever_nor_again_at_each_step(
    interruption: Interruption,
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    staged = checkpoints / "tmp-0-abc"
    staged.mkdir()
    times: Callable[[], float] = iter([0.0, 1.0, 2.0, 61.0, 62.0]).__next__
    monkeypatch.setattr("trainmaster._interruption.time.monotonic", times)
    interruption.reach(6)
    assert "training goes on until it is, and is killed then" in capsys.readouterr().err

    interruption.reach(7)  # looks at the clock once
    staged.rename(checkpoints / "ready-000000000004-aa")

    assert capsys.readouterr().err == ""
    with pytest.raises(Killed):
        interruption.reach(8)


def test_a_machine_without_checkpoints_is_no_error(wishes: Wishes, tmp_path: Path) -> None:
    Interruption(PLAN, tmp_path / "none", wishes).reach(10)
