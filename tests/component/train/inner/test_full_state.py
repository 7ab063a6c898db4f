"""What is gathered from one layout loads into any other, bit for bit."""

from pathlib import Path

import pytest

from tests.component.train.inner.oracle import TOLERANCE, measure
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

SIZES = [8, 7, 5, 3, 8, 6]


@pytest.mark.parametrize(
    ("network", "optimizer", "layouts"),
    [
        pytest.param(
            "tied",
            "adamw",
            [{"shard": 2}, {"data": 1}, {"tensor": 2}, {"tensor": 2, "shard": 2}, {"data": 2}],
            id="sharded, alone, divided, both, replicas",
        ),
        pytest.param(
            "tied",
            "adamw",
            [
                {"shard": 2},
                {"pipeline": 2},
                {"pipeline": 2, "shard": 2},
                {"pipeline": 2, "tensor": 2},
                {"data": 2, "shard": 2},
                {"data": 1},
            ],
            id="sharded, stages, both, divided stages, replicas, alone",
        ),
        pytest.param(
            "odd",
            "momentum",
            [{"shard": 3}, {"shard": 2}, {"data": 2, "shard": 2}, {"data": 1}],
            id="sizes that divide by nothing, over 3, 2, 4 and 1",
        ),
    ],
)
def test_a_training_goes_on_in_another_layout(
    forge: Forge, tmp_path: Path, network: str, layouts: list[dict[str, int]], optimizer: str
) -> None:
    state = None
    for number, layout in enumerate(layouts):
        distance = measure(
            forge,
            tmp_path / str(number),
            layout,
            network=network,
            optimizer=optimizer,
            sizes=SIZES[: number + 1],
            first=number,
            load=state,  # the script sees that gathering what it has loaded gives the same bits
            save=str(tmp_path / f"{number}.pt"),
        )
        state = str(tmp_path / f"{number}.pt")
        assert distance.largest <= TOLERANCE, layout
