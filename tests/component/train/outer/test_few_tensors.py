"""What servers and rounds cannot do is refused, and what is small is not too small for them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "few_tensors.py"
SERVED = {"mode": "parameter_server", "staleness": 0}
LOCAL = {"mode": "local_sgd", "every": 2}


def run(forge: Forge, folder: Path, sync: dict[str, Any], ranks: int = 2, **settings: Any) -> Gang:
    description = {"sync": sync}
    gang = forge.start(SCRIPT, folder, json.dumps(settings), ranks=ranks, description=description)
    return gang.succeed()


def distance(one: Gang, other: Gang) -> float:
    """Return the largest difference between two trained models."""
    pairs = zip(*(_flatten(json.loads(gang.said("values"))) for gang in (one, other)), strict=True)
    return max(abs(a - b) for a, b in pairs)


def _flatten(values: Any) -> list[float]:
    return (
        [number for each in values for number in _flatten(each)]
        if isinstance(values, list)
        else [values]
    )


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_servers_without_a_tensor_of_some_optimizer_leave_its_steps_to_the_others(
    forge: Forge, tmp_path: Path, servers: int
) -> None:
    alone = run(forge, tmp_path / "alone", {}, ranks=1)
    gang = run(forge, tmp_path / "gang", {**SERVED, "servers": servers}, ranks=3)

    assert distance(gang, alone) <= 1e-12


@pytest.mark.parametrize(
    ("sync", "settings", "words"),
    [
        (SERVED, {"optimizer": "LBFGS"}, "computes the loss again and again"),
        (SERVED, {"scaler": True}, "a gradient scaler cannot be used"),
        (SERVED, {"adds_group": True}, "add all groups before the first loop"),
        (LOCAL, {"unfreezes": True}, "model: 0.weight was frozen when run.model() joined"),
        ({}, {"unfreezes": True}, "model: 0.weight was frozen when run.model() joined"),
    ],
)
def test_what_would_go_wrong_without_a_word_is_refused_with_the_way_out(
    forge: Forge, tmp_path: Path, sync: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    gang = run(forge, tmp_path, sync, **settings)

    assert words in gang.said("refused")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_parameter_that_is_unfrozen_later_is_trained_where_that_is_right(
    forge: Forge, tmp_path: Path, ranks: int
) -> None:
    alone = run(forge, tmp_path / "alone", {}, ranks=1, unfreezes=True)
    gang = run(forge, tmp_path / "gang", SERVED, ranks=ranks, unfreezes=True)

    assert distance(gang, alone) <= 1e-12
