"""Modes other than allreduce under the same script: they end well, and resume to the bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "bits.py"
EXACT_MODES = [
    pytest.param({"mode": "local_sgd", "every": 4}, {"data": 2}, id="local_sgd"),
    pytest.param(
        {"mode": "diloco", "every": 3, "compression": "int8"}, {"data": 2}, id="diloco, int8"
    ),
    pytest.param(
        {"mode": "diloco", "every": 4, "fragments": 2}, {"data": 2}, id="diloco in fragments"
    ),
    pytest.param(
        {"mode": "local_sgd", "every": 4}, {"data": 2, "shard": 2}, id="local_sgd, sharded"
    ),
    pytest.param(
        {"mode": "parameter_server", "staleness": 0, "servers": 2},
        {"data": 2},
        id="parameter_server, synchronous",
    ),
    pytest.param({"mode": "diloco", "every": 4}, {"data": 1}, id="diloco, alone"),
    pytest.param({}, {"data": 2, "shard": 2}, id="allreduce, sharded"),
]


def read_hashes(gang: Gang) -> tuple[str, str]:
    """Return what a run says it has left: weights, and everything else."""
    hashes = gang.said("model.safetensors"), gang.said("state.pt")
    assert all(hashes), gang.output()
    return hashes


@pytest.mark.parametrize(("sync", "parallel"), EXACT_MODES)
@pytest.mark.parametrize("kill", [14, 26])
def test_a_mode_that_is_deterministic_resumes_to_the_bit(
    forge: Forge, tmp_path: Path, sync: Mapping[str, Any], parallel: Mapping[str, int], kill: int
) -> None:
    ranks = parallel["data"] * parallel.get("shard", 1)
    asked: dict[str, Any] = {"sync": sync, "parallel": parallel, "checkpoint": {"every_steps": 4}}
    whole = forge.run(SCRIPT, tmp_path / "whole", "none", "0", "0", ranks=ranks, description=asked)
    killed = forge.start(SCRIPT, tmp_path, "none", "0", str(kill), ranks=ranks, description=asked)
    assert 0 not in killed.wait()

    asked["resume"] = "trainmaster-runs/1"
    resumed = forge.run(SCRIPT, tmp_path, "none", "0", "0", ranks=ranks, description=asked)

    assert read_hashes(resumed) == read_hashes(whole)


@pytest.mark.parametrize(
    "sync",
    [
        pytest.param({}, id="allreduce"),
        pytest.param({"mode": "local_sgd", "every": 4}, id="local_sgd"),
        pytest.param({"mode": "parameter_server", "staleness": 2}, id="bounded"),
        pytest.param({"mode": "parameter_server", "staleness": None}, id="asynchronous"),
    ],
)
def test_buffers_are_trained_and_each_row_is_evaluated_once(
    forge: Forge, tmp_path: Path, sync: Mapping[str, Any]
) -> None:
    gang = forge.run(SCRIPTS / "with_buffers.py", tmp_path, ranks=2, description={"sync": sync})

    for rank in (0, 1):
        assert gang.said("seen", rank) == "40.0"
        assert 0.7 < float(gang.said("accuracy", rank)) <= 1


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"mode": "local_sgd", "every": 4}, {"mode": "parameter_server", "staleness": 0}),
        (
            {"mode": "parameter_server", "staleness": 0, "compression": "int8"},
            {"mode": "diloco", "every": 4, "fragments": 2},
        ),
        ({"mode": "diloco", "every": 4}, {"mode": "diloco", "every": 4, "fragments": 2}),
        ({"mode": "diloco", "every": 16}, {}),
    ],
)
def test_a_training_that_was_left_in_a_round_goes_on_in_another_mode(
    forge: Forge, tmp_path: Path, first: Mapping[str, Any], then: Mapping[str, Any]
) -> None:
    """The script breaks out of its loop at step 13, where no round is due."""
    forge.run(SCRIPT, tmp_path, "none", "13", "0", ranks=2, description={"sync": first})

    asked = {"sync": then, "resume": "trainmaster-runs/1"}
    forge.run(SCRIPT, tmp_path, "none", "0", "0", ranks=2, description=asked)

    assert len(list((tmp_path / "trainmaster-runs" / "2").glob("checkpoints/*30-*"))) == 1
