"""A replica that joins has the schedules of the others, and so does not disturb theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.lives import Replica
from tests.component.train.ranks import Forge, common_environment

pytestmark = pytest.mark.torch


def train_with_a_death(
    forge: Forge, folder: Path, sync: dict[str, Any], victim: int
) -> tuple[Replica, Replica]:
    """Return the one that survives and the one that joins it, when both are done."""
    environment = common_environment(folder, 2, {"sync": sync})
    settings = {"steps": 150, "step_s": 0.02}
    both = [
        Replica(forge, folder, environment, ("schedules.py", rank, settings)) for rank in (0, 1)
    ]
    survivor = both[1 - victim]
    both[victim].until_step(30)
    both[victim].kill()
    survivor.until_step(survivor.step + 10)
    again = Replica(forge, folder, environment, ("schedules.py", victim, settings))
    assert survivor.result["steps"] == again.result["steps"] == 150
    return survivor, again


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "sync",
    [
        pytest.param({"mode": "local_sgd", "every": 5}, id="local SGD"),
        pytest.param({"mode": "parameter_server", "staleness": 0, "servers": 2}, id="in step"),
    ],
)
def test_who_joins_in_step_has_the_rate_of_the_others_at_once(
    forge: Forge, tmp_path: Path, sync: dict[str, Any], victim: int
) -> None:
    survivor, again = train_with_a_death(forge, tmp_path, sync, victim)

    assert again.steps[0] > 30
    assert again.rates == again.steps
    assert survivor.rates == survivor.steps
    one, other = survivor.result, again.result
    assert one["parameters"] == other["parameters"]
    assert other["tally"] == one["tally"] == [150] * 4


@pytest.mark.parametrize("staleness", [2, None])
def test_who_joins_out_of_step_has_the_rate_of_another(
    forge: Forge, tmp_path: Path, staleness: int | None
) -> None:
    sync = {"mode": "parameter_server", "staleness": staleness}

    survivor, again = train_with_a_death(forge, tmp_path, sync, 1)

    assert again.rates[0] > 30
    # Each counts its own steps: as many as the other at the beginning, then about as many.
    assert again.rates[0] <= survivor.result["scheduled"]
    assert again.rates == list(range(again.rates[0], again.rates[0] + len(again.rates)))
    assert survivor.rates == list(range(1, len(survivor.rates) + 1))
