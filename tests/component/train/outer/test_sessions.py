"""What a session makes of replicas that leave a loop, or are missing, before it saves."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "sessions.py"
RANKS = 3


def start(
    forge: Forge, folder: Path, sync: dict[str, Any], resume: Path | None = None, **more: Any
) -> Gang:
    """Start replicas that go on from where those in another folder ended, if one is given."""
    description: dict[str, Any] = {"sync": sync}
    if resume is not None:
        description["resume"] = str(resume / "trainmaster-runs" / "1")
    settings = json.dumps({"steps": 20, **more})
    return forge.start(SCRIPT, folder, settings, ranks=RANKS, description=description)


@pytest.mark.parametrize("staleness", [1, None])
def test_replicas_that_break_out_of_an_asynchronous_loop_are_one_before_it_is_saved(
    forge: Forge, tmp_path: Path, staleness: int | None
) -> None:
    sync = {"mode": "parameter_server", "staleness": staleness}

    first = start(forge, tmp_path / "first", sync, break_at=4, pause_s=0.02).succeed()
    second = start(forge, tmp_path / "then", sync, tmp_path / "first").succeed()

    assert {first.said("counted", rank) for rank in range(RANKS)} == {str(RANKS)}
    assert len({first.said("evaluated", rank) for rank in range(RANKS)}) == 1
    assert len({first.said("at", rank) for rank in range(RANKS)}) == 1
    used = Counter(
        row
        for gang in (first, second)
        for rank in range(RANKS)
        for row in json.loads(gang.said("used", rank))
    )
    # Two epochs; what nobody had begun of the batch that was left is not done.
    assert max(used.values()) == 2
    assert 2 * 120 - used.total() < 12


@pytest.mark.parametrize("staleness", [1, None])
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({"every_steps": 10}, id="by steps"),
        pytest.param({"every_seconds": 0.3}, id="by the clock of the one that has left"),
    ],
)
def test_checkpoints_are_taken_though_the_first_replica_has_left_the_loop(
    forge: Forge, tmp_path: Path, policy: dict[str, Any], staleness: int | None
) -> None:
    sync = {"mode": "parameter_server", "staleness": staleness}
    settings = {"steps": 80, "break_at": 4, "leaves": 0, "pause_s": 0.01, "epochs": 8}
    description = {"sync": sync, "checkpoint": policy}

    gang = forge.start(
        SCRIPT, tmp_path, json.dumps(settings), ranks=RANKS, description=description
    ).succeed()

    saved = [
        int(line.removeprefix("checkpoint of step ").split(":")[0])
        for line in gang.output(0).splitlines()
        if line.startswith("checkpoint of step ")
    ]
    left_at = int(gang.said("leaves"))
    assert len([step for step in saved if left_at < step < 80]) >= 2, saved
    assert saved[-1] == 80
    assert len({gang.said("evaluated", rank) for rank in range(RANKS)}) == 1
    assert {gang.said("counted", rank) for rank in range(RANKS)} == {str(RANKS)}


def test_a_checkpoint_without_one_replica_keeps_what_each_of_the_others_had(
    forge: Forge, tmp_path: Path
) -> None:
    sync = {"mode": "local_sgd", "every": 5}
    first = start(forge, tmp_path / "first", sync, die_at=7, victim=1, steps=15)
    assert first.wait() == [0, -9, 0]

    second = start(forge, tmp_path / "then", sync, tmp_path / "first", steps=20).succeed()

    assert first.said("left", 0) != first.said("left", 2)
    for rank in (0, 2):
        assert second.said("found", rank) == first.said("left", rank)
        assert "was missing" not in second.output(rank)
    assert "replica 1 was missing at the checkpoint" in second.output(1)
    assert second.said("found", 1) == first.said("left", 0)


def test_what_each_replica_had_is_in_a_checkpoint_once(forge: Forge, tmp_path: Path) -> None:
    sync = {"mode": "local_sgd", "every": 5}
    first = start(forge, tmp_path / "first", sync, steps=10).succeed()

    second = start(forge, tmp_path / "then", sync, tmp_path / "first").succeed()

    for rank in range(RANKS):
        assert second.said("found", rank) == first.said("left", rank)
