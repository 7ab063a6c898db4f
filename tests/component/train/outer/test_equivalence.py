"""Modes that must compute what data parallel training computes, and mistakes that must show."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.runs import SEEN, TOLERANCE, distance, spread, train
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

LOCAL = {"mode": "local_sgd", "every": 1}
DILOCO_AS_LOCAL = {"mode": "diloco", "every": 1, "outer_lr": 1.0, "outer_momentum": 0.0}
SYNCHRONOUS = {"mode": "parameter_server", "staleness": 0}
TWO_SERVERS = {**SYNCHRONOUS, "servers": 2}
EVERY_4 = {"mode": "local_sgd", "every": 4}
DILOCO = {"mode": "diloco", "every": 4}

Reference = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def alone(_session_forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Plain torch on the whole batches, by optimizer and number of samples."""

    @functools.cache
    def run(optimizer: str, size: int) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("alone")
        return train(_session_forge, folder, None, optimizer, size=size)[0]

    return run


@pytest.mark.parametrize("sync", [LOCAL, DILOCO_AS_LOCAL], ids=["local_sgd", "diloco"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize(("ranks", "size"), [(1, 103), (2, 96), (3, 97)])
def test_a_round_every_step_is_data_parallel_for_optimizers_linear_in_the_gradient(
    forge: Forge,
    tmp_path: Path,
    alone: Reference,
    sync: dict[str, Any],
    optimizer: str,
    ranks: int,
    size: int,
) -> None:
    out = train(forge, tmp_path, sync, optimizer, ranks=ranks, size=size)

    assert max(distance(each, alone(optimizer, size)) for each in out) <= TOLERANCE


def test_a_round_every_step_is_something_else_for_adamw(
    forge: Forge, tmp_path: Path, alone: Reference
) -> None:
    out = train(forge, tmp_path, LOCAL, "adamw", ranks=2)

    assert distance(out[0], alone("adamw", 96)) > 1e-3
    assert spread(out) == 0


@pytest.mark.parametrize("sync", [SYNCHRONOUS, TWO_SERVERS], ids=["one server", "two servers"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
@pytest.mark.parametrize(("ranks", "size"), [(2, 96), (3, 103), (3, 97)])
def test_a_synchronous_parameter_server_is_data_parallel(
    forge: Forge,
    tmp_path: Path,
    alone: Reference,
    sync: dict[str, Any],
    optimizer: str,
    ranks: int,
    size: int,
) -> None:
    out = train(forge, tmp_path, sync, optimizer, ranks=ranks, size=size)

    assert max(distance(each, alone(optimizer, size)) for each in out) <= TOLERANCE


@pytest.mark.parametrize("staleness", [0, 2, None])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_one_replica_of_a_parameter_server_is_one_process_exactly(
    forge: Forge, tmp_path: Path, alone: Reference, optimizer: str, staleness: int | None
) -> None:
    sync = {"mode": "parameter_server", "staleness": staleness}

    out = train(forge, tmp_path, sync, optimizer, size=103)

    assert distance(out[0], alone(optimizer, 103)) == 0


@pytest.mark.parametrize(
    "sync", [EVERY_4, DILOCO, {**DILOCO, "fragments": 2}, TWO_SERVERS], ids=str
)
def test_what_is_computed_repeats_bit_for_bit(
    forge: Forge, tmp_path: Path, sync: dict[str, Any]
) -> None:
    one = train(forge, tmp_path / "one", sync, "momentum", ranks=3, size=103)
    two = train(forge, tmp_path / "two", sync, "momentum", ranks=3, size=103)

    assert distance(one[0], two[0]) == 0
    assert spread(one) == 0


def test_diloco_without_an_outer_optimizer_is_local_sgd(forge: Forge, tmp_path: Path) -> None:
    local = train(forge, tmp_path / "local", EVERY_4, "adamw", ranks=2)
    diloco = train(forge, tmp_path / "diloco", {**DILOCO_AS_LOCAL, "every": 4}, "adamw", ranks=2)
    with_one = train(forge, tmp_path / "with", DILOCO, "adamw", ranks=2)

    assert distance(local[0], diloco[0]) == 0
    assert distance(local[0], with_one[0]) > SEEN


def test_rounds_are_steps_divided_by_every_and_so_are_bytes(forge: Forge, tmp_path: Path) -> None:
    each_step = train(forge, tmp_path / "1", LOCAL, ranks=2, size=128)
    every_4 = train(forge, tmp_path / "4", EVERY_4, ranks=2, size=128)

    one, four = each_step[0]["counters"], every_4[0]["counters"]
    assert (one["rounds"], four["rounds"]) == (24, 6)
    assert one["sent"]["round"] == 4 * four["sent"]["round"] == 24 * (8 * 16 + 16 + 16 * 3 + 3) * 8
    assert one["received"]["round"] == one["sent"]["round"]


@pytest.mark.parametrize(
    ("fragments", "parts_of_the_model"),
    [
        pytest.param(2, 2, id="two fragments"),
        pytest.param(4, 3, id="four, but one tensor is larger than two of them"),
    ],
)
def test_each_fragment_goes_once_in_each_interval(
    forge: Forge, tmp_path: Path, fragments: int, parts_of_the_model: int
) -> None:
    sync = {**DILOCO, "fragments": fragments}

    whole = train(forge, tmp_path / "whole", DILOCO, ranks=2, size=128)[0]["counters"]
    parts = train(forge, tmp_path / "parts", sync, ranks=2, size=128)[0]["counters"]

    # Twenty-four steps are six intervals. A fragment that is not due at the last step has one
    # more round, at the end of the loop, for the steps since.
    extra = parts["sent"]["round"] - whole["sent"]["round"]
    assert 0 < extra < whole["sent"]["round"] / 6
    assert parts["rounds"] == 6 * parts_of_the_model + 1


def test_each_sample_is_used_once_per_epoch_and_each_replica_sees_each_epoch_end(
    forge: Forge, tmp_path: Path
) -> None:
    sync = {"mode": "parameter_server", "staleness": None}

    out = train(forge, tmp_path, sync, ranks=3, size=97)

    used = Counter((epoch, row) for each in out for epoch, row in each["used"])
    assert used == {(epoch, row): 1 for epoch in range(3) for row in range(97)}
    assert [each["ends"] for each in out] == [3, 3, 3]
    assert spread(out) == 0


@pytest.mark.parametrize(
    ("mutation", "sync", "size"),
    [
        ("add up", LOCAL, 96),
        ("weigh equally", LOCAL, 103),
        ("turn the outer sign", LOCAL, 96),
        ("keep the first anchor", LOCAL, 96),
        ("add up", SYNCHRONOUS, 96),
        ("weigh equally", SYNCHRONOUS, 103),
        ("lose a push", SYNCHRONOUS, 96),
        ("apply a push twice", TWO_SERVERS, 96),
    ],
)
def test_the_comparison_would_see_a_mistake(
    forge: Forge,
    tmp_path: Path,
    alone: Reference,
    mutation: str,
    sync: dict[str, Any],
    size: int,
) -> None:
    out = train(forge, tmp_path, sync, "sgd", ranks=3, size=size, mutation=mutation)

    assert distance(out[0], alone("sgd", size)) > SEEN


def test_a_fragment_that_is_skipped_would_be_seen(forge: Forge, tmp_path: Path) -> None:
    sync = {**DILOCO, "fragments": 2}

    out = train(forge, tmp_path, sync, ranks=2, size=128, mutation="skip a fragment")

    assert out[0]["counters"]["rounds"] != 6 * 2 + 1


@pytest.mark.parametrize(
    ("mutation", "is_same"), [(None, True), ("leave learning rates alone", False)]
)
def test_servers_follow_a_schedule_of_the_script(
    forge: Forge, tmp_path: Path, mutation: str | None, is_same: bool
) -> None:
    alone = train(forge, tmp_path / "alone", None, "momentum", decays=True)

    out = train(forge, tmp_path, TWO_SERVERS, "momentum", ranks=2, decays=True, mutation=mutation)

    assert (distance(out[0], alone[0]) <= TOLERANCE) == is_same


def test_ranks_of_one_number_in_each_replica_share_what_is_theirs(
    forge: Forge, tmp_path: Path
) -> None:
    two = train(forge, tmp_path / "two", EVERY_4, ranks=2)
    four = train(forge, tmp_path / "four", EVERY_4, ranks=4, slots=2)

    assert max(distance(two[0], each) for each in four) == 0


def test_buffers_are_the_mean_over_replicas(forge: Forge, tmp_path: Path) -> None:
    out = train(forge, tmp_path / "right", EVERY_4, ranks=2, has_norm=True)
    wrong = train(
        forge, tmp_path / "wrong", EVERY_4, ranks=2, has_norm=True, mutation="forget a buffer"
    )

    assert spread(out) == 0
    assert distance(out[0], wrong[0]) > SEEN


def test_a_lost_update_would_be_seen_in_asynchronous_training(
    forge: Forge, tmp_path: Path, alone: Reference
) -> None:
    sync = {"mode": "parameter_server", "staleness": None}

    out = train(forge, tmp_path, sync, size=96, mutation="lose a push")

    assert distance(out[0], alone("sgd", 96)) > SEEN
