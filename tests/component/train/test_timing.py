"""Where the time of each rank goes, as its supervisor can read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import SCRIPTS, Forge
from workers.supervisor.pulse import PHASES, Pulse, find_pulse

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "slow_data.py"


def _see(folder: Path, rank: int) -> tuple[Pulse, dict[str, float]]:
    pulse = find_pulse(folder / "pulses" / str(rank))
    assert pulse is not None
    total = sum(pulse.seconds)
    return pulse, {name: each / total for name, each in zip(PHASES, pulse.seconds, strict=True)}


def test_a_rank_with_slow_data_waits_for_them_and_the_other_for_it(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    (supervisor.folder / "pulses").mkdir()
    description = supervisor.describe_run(
        pulses_dir=str(supervisor.folder / "pulses"), health={"on_nan": "fail"}
    )

    forge.start(
        SCRIPT, supervisor.folder, "1", "0.02", "40", ranks=2, description=description
    ).succeed()

    waiting, fast = _see(supervisor.folder, 0)
    slow, hindered = _see(supervisor.folder, 1)
    assert waiting.step == slow.step == 40
    assert not slow.expects_step
    assert hindered["data_wait"] > 0.4
    assert hindered["communication"] < 0.2
    assert fast["data_wait"] < 0.1
    assert fast["communication"] > 0.3
    assert min(fast["compute"], hindered["compute"]) > 0.1


def test_what_comes_after_the_loop_is_idle(forge: Forge, supervisor: FakeSupervisor) -> None:
    (supervisor.folder / "pulses").mkdir()
    description = supervisor.describe_run(
        pulses_dir=str(supervisor.folder / "pulses"),
        checkpoint={"every_steps": 5, "every_seconds": None},
    )

    forge.start(SCRIPT, supervisor.folder, "9", "0", "10", description=description).succeed()

    pulse, shares = _see(supervisor.folder, 0)
    assert pulse.phase == "idle"
    assert shares["checkpoint"] > 0
    assert shares["communication"] < 0.1
