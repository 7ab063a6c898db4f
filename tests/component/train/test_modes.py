"""Modes other than allreduce end well, and one goes on where another was left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "bits.py"


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


def test_with_a_gradient_scaler_all_replicas_skip_the_same_step(
    forge: Forge, tmp_path: Path
) -> None:
    """The gradient of one is infinite: their mean is, and each halves its scale."""
    gang = forge.run(SCRIPTS / "with_scaler.py", tmp_path, ranks=2)

    assert [gang.said("scale", rank) for rank in (0, 1)] == ["512.0 True"] * 2


def test_a_gradient_scaler_is_refused_where_ranks_have_parts_of_the_gradients(
    forge: Forge, tmp_path: Path
) -> None:
    script = SCRIPTS / "with_scaler.py"

    gang = forge.start(script, tmp_path, ranks=2, description={"parallel": {"shard": 2}})

    assert 0 not in gang.wait()
    assert "compute in bfloat16, which needs none, or use data ranks alone" in gang.output()


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
