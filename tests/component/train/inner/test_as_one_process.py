"""However a model is spread over ranks, its training is that of one process on whole batches."""

from pathlib import Path
from typing import Any

import pytest

from tests.component.train.inner.oracle import TOLERANCE, measure
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

# Batches of 8, 8, 7 and 1: shares are uneven in the third, and all but one empty in the last.
SPREADS = [
    pytest.param({"shard": 2}, {}, id="sharded over two"),
    pytest.param({"shard": 2}, {"network": "tied", "microbatches": 3}, id="tied, in microbatches"),
    pytest.param({"shard": 3}, {"network": "odd", "clip": 0.1}, id="sizes that do not divide"),
    pytest.param({"data": 2, "shard": 2}, {"network": "odd"}, id="sharded within two replicas"),
    pytest.param({"tensor": 2}, {"clip": 0.5}, id="layers divided by two"),
    pytest.param({"tensor": 2}, {"network": "tied"}, id="divided, embedding and head tied"),
    pytest.param({"tensor": 4}, {"microbatches": 2}, id="layers divided by four"),
    pytest.param({"data": 2, "tensor": 2}, {"microbatches": 2}, id="two replicas, each divided"),
    pytest.param({"shard": 2, "tensor": 2}, {"clip": 0.5}, id="sharded and divided"),
    pytest.param({"shard": 2, "tensor": 2}, {"network": "tied"}, id="sharded, divided and tied"),
    pytest.param({"pipeline": 2}, {"clip": 0.5}, id="two stages"),
    pytest.param(
        {"pipeline": 2}, {"network": "tied", "microbatches": 3, "clip": 0.5}, id="stages, tied"
    ),
    pytest.param({"pipeline": 4}, {"network": "deep"}, id="four stages"),
    pytest.param(
        {"pipeline": 2}, {"network": "deep", "stages_per_rank": 2}, id="four stages on two ranks"
    ),
    pytest.param(
        {"pipeline": 2, "shard": 2},
        {"network": "deep", "stages_per_rank": 2, "clip": 0.5},
        id="sharded stages, two on each rank",
    ),
    pytest.param({"pipeline": 2, "shard": 2}, {"network": "tied"}, id="sharded stages, tied"),
    pytest.param({"pipeline": 2, "tensor": 2}, {"network": "tied", "clip": 0.5}, id="TP and PP"),
    pytest.param({"data": 2, "pipeline": 2}, {"network": "tied"}, id="replicas in stages"),
    pytest.param(
        {"data": 2, "pipeline": 2, "tensor": 2},
        {"network": "tied", "clip": 0.5, "sizes": [8, 3]},
        id="replicas in stages of divided layers",
    ),
    pytest.param(
        {"pipeline": 2}, {"sizes": [1, 3, 9, 8]}, id="batches that grow and leave pieces empty"
    ),
]


@pytest.mark.parametrize(("layout", "order"), SPREADS)
def test_a_spread_model_trains_as_one_process_does(
    forge: Forge, tmp_path: Path, layout: dict[str, int], order: dict[str, Any]
) -> None:
    assert measure(forge, tmp_path, layout, **order).largest <= TOLERANCE


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("layout", [{"data": 3}, {"shard": 2}, {"tensor": 2}, {"pipeline": 2}])
def test_so_it_does_with_every_optimizer(
    forge: Forge, tmp_path: Path, layout: dict[str, int], optimizer: str
) -> None:
    assert measure(forge, tmp_path, layout, optimizer=optimizer).largest <= TOLERANCE


@pytest.mark.parametrize("layout", [{"tensor": 2}, {"shard": 2, "tensor": 2}])
def test_so_it_does_when_all_parameters_are_to_be_updated_at_once_as_on_a_gpu(
    forge: Forge, tmp_path: Path, layout: dict[str, int]
) -> None:
    assert measure(forge, tmp_path, layout, is_foreach=True).largest <= TOLERANCE


@pytest.mark.parametrize(
    ("mutation", "layout", "order"),
    [
        ("gradients of shards are not added", {"shard": 2}, {}),
        ("gradients of replicas are not added", {"data": 2, "shard": 2}, {}),
        ("parts of a layer's output are not added", {"tensor": 2}, {}),
        ("gradients are not averaged", {"data": 2}, {}),
        ("gradients are averaged twice", {"data": 2}, {}),
        ("gradients are added, not averaged", {"shard": 2}, {}),
        ("every share counts the same", {"shard": 2}, {}),
        ("every microbatch counts the same", {"shard": 2}, {"microbatches": 3}),
        ("microbatches are added", {"pipeline": 2}, {}),
        ("microbatches are averaged, however small", {"pipeline": 2}, {"microbatches": 3}),
        ("tied parameters stay apart", {"pipeline": 2}, {"network": "tied"}),
        ("the norm is that of the own part", {"pipeline": 2}, {"clip": 0.5}),
        ("buffers are left as they are", {"shard": 2}, {"network": "odd"}),
        ("the norm is that of the own part", {"shard": 2}, {"clip": 0.5}),
        ("the norm is that of the own part", {"tensor": 2}, {"clip": 0.5}),
    ],
)
def test_the_comparison_would_see_a_mistake(
    forge: Forge, tmp_path: Path, mutation: str, layout: dict[str, int], order: dict[str, Any]
) -> None:
    distance = measure(forge, tmp_path, layout, optimizer="sgd", mutation=mutation, **order)

    assert distance.weights > 1e-4
