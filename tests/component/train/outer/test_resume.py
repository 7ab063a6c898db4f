"""A training that is resumed is the one that was not interrupted, to the last bit."""

from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.runs import SEEN, distance, train
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

INT8_ROUNDS = {"mode": "diloco", "every": 3, "compression": "int8"}
INT8_SERVER = {
    "mode": "parameter_server", "staleness": 0, "compression": "int8", "servers": 2
}  # fmt: skip
SERVER = {"mode": "parameter_server", "staleness": 0}


def resume(
    forge: Forge,
    folder: Path,
    sync: dict[str, Any],
    optimizer: str,
    stop: int,
    mutation: str | None = None,
) -> float:
    """Return how far a training that was stopped after a step is from one that was not."""
    more: dict[str, Any] = {"ranks": 2, "size": 103}
    whole = train(forge, folder / "whole", sync, optimizer, **more)
    train(forge, folder / "cut", sync, optimizer, stop=stop, **more)

    out = train(forge, folder / "cut", sync, optimizer, resume=True, mutation=mutation, **more)

    return max(distance(a, b) for a, b in zip(out, whole, strict=True))


@pytest.mark.parametrize("stop", [3, 12])
@pytest.mark.parametrize(
    ("sync", "optimizer"),
    [
        pytest.param({"mode": "local_sgd", "every": 3}, "adamw", id="local SGD"),
        pytest.param({"mode": "diloco", "every": 3}, "momentum", id="DiLoCo"),
        pytest.param(INT8_ROUNDS, "momentum", id="DiLoCo in 8 bits"),
        pytest.param({**INT8_ROUNDS, "fragments": 3}, "momentum", id="fragments in 8 bits"),
        pytest.param(SERVER, "adamw", id="a parameter server"),
        pytest.param(INT8_SERVER, "nesterov", id="two servers in 8 bits"),
    ],
)
def test_it_goes_on_to_the_same_bits(
    forge: Forge, tmp_path: Path, sync: dict[str, Any], optimizer: str, stop: int
) -> None:
    assert resume(forge, tmp_path, sync, optimizer, stop) == 0


@pytest.mark.parametrize(
    ("mutation", "sync", "optimizer"),
    [
        ("lose the residuals", INT8_ROUNDS, "sgd"),
        ("lose the residuals", INT8_SERVER, "sgd"),
        ("lose what the server has not sent", INT8_ROUNDS, "sgd"),
        ("lose what the server has not sent", INT8_SERVER, "sgd"),
        ("lose the outer momentum", {"mode": "diloco", "every": 3}, "sgd"),
        ("forget the optimizer", SERVER, "momentum"),
    ],
)
def test_what_a_checkpoint_lacked_would_be_seen(
    forge: Forge, tmp_path: Path, sync: dict[str, Any], optimizer: str, mutation: str
) -> None:
    assert resume(forge, tmp_path, sync, optimizer, 3, mutation) > SEEN / 100


def test_asynchronous_replicas_meet_where_no_piece_is_under_way(
    forge: Forge, tmp_path: Path
) -> None:
    sync = {"mode": "parameter_server", "staleness": None}
    more: dict[str, Any] = {"ranks": 3, "size": 97}

    first = train(forge, tmp_path, sync, "momentum", meet_after=7, **more)
    second = train(forge, tmp_path, sync, "momentum", resume=True, **more)

    used = sorted((epoch, row) for each in first + second for epoch, row in each["used"])
    assert used == [(epoch, row) for epoch in range(3) for row in range(97)]
    assert 0 < len([each for out in second for each in out["used"]]) < 3 * 97
