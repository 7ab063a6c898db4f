"""What a step of a spread model sends, operation by operation, and what memory it takes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.inner.oracle import SCRIPTS
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

BLOCKS = 3
# Blocks are put together for both passes, what is around them once.
GATHERED = {"allgather_base": 2 * BLOCKS + 1, "reduce_scatter_base": BLOCKS + 1}
# Two layers of a block give a sum forwards, two backwards; so do embedding and head, one each.
DIVIDED = {"all_reduce": 4 * BLOCKS + 2, "all_gather_into_tensor": 1}
SYNCHRONIZED = {"mutation": "every microbatch is synchronized", "microbatches": 3}


def count(forge: Forge, folder: Path, layout: dict[str, int], **order: Any) -> dict[str, int]:
    """Return what every rank sends in one step, by operation."""
    script, ranks = SCRIPTS / "counts.py", math.prod(layout.values())
    gang = forge.run(script, folder, json.dumps({"layout": layout, **order}), ranks=ranks)
    counts: list[dict[str, int]] = [json.loads(gang.said("result", rank)) for rank in range(ranks)]
    assert all(each == counts[0] for each in counts)
    return counts[0]


@pytest.mark.parametrize(
    ("layout", "order", "want"),
    [
        pytest.param({"shard": 2}, {}, GATHERED, id="sharded"),
        pytest.param(
            {"shard": 2},
            {"microbatches": 3},
            {**GATHERED, "allgather_base": 3 * GATHERED["allgather_base"]},
            id="sharded, in microbatches: gradients are divided once",
        ),
        pytest.param(
            {"data": 2, "shard": 2},
            {},
            {**GATHERED, "allreduce": BLOCKS + 1},
            id="sharded within replicas",
        ),
        pytest.param({"tensor": 2}, {}, DIVIDED, id="layers divided"),
        pytest.param({"shard": 2, "tensor": 2}, {}, {**GATHERED, **DIVIDED}, id="both"),
        pytest.param({"data": 2}, {"microbatches": 3}, {"allreduce": 1}, id="averaged once"),
        pytest.param(
            {"pipeline": 2},
            {"microbatches": 3},
            {"send": 3, "recv": 3, "broadcast": 1},
            id="stages: each microbatch there and back, and the loss",
        ),
        pytest.param(
            {"pipeline": 2},
            {"microbatches": 3, "network": "tied"},
            {"send": 4, "recv": 4, "broadcast": 1},
            id="stages, and one gradient that both have",
        ),
    ],
)
def test_a_step_sends_what_it_must_and_no_more(
    forge: Forge, tmp_path: Path, layout: dict[str, int], order: dict[str, Any], want: object
) -> None:
    assert count(forge, tmp_path, layout, **order) == want


def test_replicas_of_torch_exchange_gradients_in_the_last_microbatch_only(
    forge: Forge, tmp_path: Path
) -> None:
    order = {"is_replicated_by_torch": True, "microbatches": 3}

    assert count(forge, tmp_path, {"data": 2}, **order)["bucket"] == 1


@pytest.mark.parametrize(
    ("layout", "order", "name", "once"),
    [
        ({"shard": 2}, {}, "reduce_scatter_base", BLOCKS + 1),
        ({"data": 2}, {"is_replicated_by_torch": True}, "bucket", 1),
    ],
)
def test_the_counts_would_see_that_every_microbatch_is_synchronized(
    forge: Forge,
    tmp_path: Path,
    layout: dict[str, int],
    order: dict[str, Any],
    name: str,
    once: int,
) -> None:
    assert count(forge, tmp_path, layout, **order, **SYNCHRONIZED)[name] == 3 * once


def test_a_rank_of_a_spread_model_takes_less_memory(forge: Forge, tmp_path: Path) -> None:
    def peak_mib(**layout: int) -> float:
        script, ranks = SCRIPTS / "memory.py", math.prod(layout.values())
        folder = tmp_path / "-".join(layout)
        gang = forge.run(script, folder, json.dumps(layout), ranks=ranks)
        return max(float(gang.said("peak", rank)) for rank in range(ranks))

    alone = peak_mib(data=1)

    # Half of weights, gradients and two moments each; a shard also has a whole block at a time.
    assert peak_mib(shard=2) < 0.7 * alone
    assert peak_mib(tensor=2) < 0.65 * alone
    assert peak_mib(pipeline=2) < 0.65 * alone
    assert peak_mib(data=2) > alone
