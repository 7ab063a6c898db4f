"""A loss that is NaN ends the run, and no checkpoint is made of what it leaves."""

from __future__ import annotations

import re

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import SCRIPTS, Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "diverges.py"


def _start(
    forge: Forge, supervisor: FakeSupervisor, *arguments: str, ranks: int = 1, on_nan: str = "fail"
) -> Gang:
    description = supervisor.describe_run(
        health={"on_nan": on_nan}, checkpoint={"every_steps": 2, "every_seconds": None}
    )
    return forge.start(SCRIPT, supervisor.folder, *arguments, ranks=ranks, description=description)


def _saved_steps(supervisor: FakeSupervisor) -> list[int]:
    return [message["step"] for message in supervisor.of_kind("commit")]


def test_the_rank_whose_loss_is_nan_ends_and_the_checkpoint_before_stays(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    gang = _start(forge, supervisor, "loss", "0", "5")

    assert gang.wait() == [1]

    (line,) = re.findall(r"^.*NonFiniteLoss: .*$", gang.output(), re.MULTILINE)
    assert "loss is nan at step 5. Use a lower learning rate" in line
    assert _saved_steps(supervisor) == [2, 4]


def test_a_rank_that_logs_nothing_ends_as_well(forge: Forge, supervisor: FakeSupervisor) -> None:
    gang = _start(forge, supervisor, "loss", "1", "5", ranks=2)

    codes = gang.wait()

    assert codes[1] == 1
    assert "loss is nan at step 5" in gang.output(1)
    assert _saved_steps(supervisor) == [2, 4]


def test_no_checkpoint_is_made_of_weights_that_hold_nan(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    gang = _start(forge, supervisor, "gradient", "0", "6")

    assert gang.wait() == [1]

    assert "NonFiniteLoss" in gang.output()
    assert _saved_steps(supervisor) == [2, 4]


def test_a_job_may_train_on_through_it(forge: Forge, supervisor: FakeSupervisor) -> None:
    gang = _start(forge, supervisor, "loss", "0", "5", on_nan="ignore").succeed()

    assert "went on to the end" in gang.output()
    assert _saved_steps(supervisor) == [2, 4, 6, 8, 10]
