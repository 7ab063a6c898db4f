"""A training that goes on with other ranks, or spread otherwise, is what it would have been.

It stops after a step, and goes on in another layout, twice or more. Where all replicas go in step,
what it leaves is what one process on whole batches leaves. Replicas that meet every few steps are
another training by their number, so there the reference has as many in each part.
"""

import collections
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "elastic.py"
STEPS = 24
# Twenty-four steps in double precision, whose sums differ in order only: a few hundred roundings
# of 1e-16 each. A wrong weight shows as 1e-4 and more.
TOLERANCE = 1e-12
SEEN = 1e-6
SERVER = {"mode": "parameter_server", "staleness": 0}
LOCAL = {"mode": "local_sgd", "every": 4}
DILOCO = {"mode": "diloco", "every": 4, "outer_lr": 0.7, "outer_momentum": 0.9}

Layouts = Sequence[Mapping[str, int]]


def train_in_parts(
    forge: Forge,
    folder: Path,
    optimizer: str,
    layouts: Layouts,
    stops: Sequence[int],
    sync: Mapping[str, Any],
    mutation: str = "none",
) -> list[float]:
    """Return the parameters after a part in each layout, all but the last up to a step."""
    for number, (layout, stop) in enumerate(zip(layouts, [*stops, 0], strict=True)):
        forge.run(
            SCRIPT,
            folder,
            *("ours", optimizer, mutation, str(stop)),
            ranks=math.prod(layout.values()),
            description={
                "parallel": dict(layout),
                "sync": dict(sync),
                "resume": f"trainmaster-runs/{number}" if number else None,
            },
        )
    return read_parameters(folder)


def train_reference(
    forge: Forge, folder: Path, optimizer: str, phases: Sequence[str], sync: Mapping[str, Any]
) -> list[float]:
    """Return the parameters after plain torch."""
    description = {"sync": dict(sync)}
    forge.run(SCRIPT, folder, "reference", optimizer, *phases, description=description)
    return read_parameters(folder)


def read_parameters(folder: Path) -> list[float]:
    """Return what a run has written."""
    parameters: list[float] = json.loads((folder / "parameters.json").read_text())
    return parameters


def count_samples(folder: Path) -> collections.Counter[tuple[int, int]]:
    """Return how often each sample was used in each epoch."""
    lines = [line for path in folder.glob("used-*") for line in path.read_text().splitlines()]
    return collections.Counter((epoch, sample) for epoch, sample in map(json.loads, lines))


def largest_difference(one: list[float], other: list[float]) -> float:
    """Return the distance in the largest component."""
    assert len(one) == len(other) > 0
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


ONCE = {(epoch, sample): 1 for epoch in range(3) for sample in range(96)}
IN_STEP = [
    pytest.param([{"shard": 2}, {"shard": 3}, {"shard": 1}], [6, 13], {}, id="shards 2, 3, 1"),
    pytest.param(
        [{"data": 2}, {"shard": 2}, {"tensor": 2}, {"pipeline": 2}, {"data": 1}],
        [4, 9, 14, 19],
        {},
        id="data, shard, tensor, pipeline, one",
    ),
    pytest.param(
        [{"data": 1}, {"pipeline": 2, "tensor": 2}, {"data": 2, "shard": 2}],
        [5, 11],
        {},
        id="one, tensor x pipeline, data x shard",
    ),
    pytest.param(
        [{"data": 2}, {"data": 3}, {"data": 1}], [6, 13], SERVER, id="parameter_server 2, 3, 1"
    ),
]


@pytest.mark.parametrize(("layouts", "stops", "sync"), IN_STEP)
def test_in_step_it_is_one_process_however_often_it_is_spread_otherwise(
    forge: Forge, tmp_path: Path, layouts: Layouts, stops: list[int], sync: dict[str, Any]
) -> None:
    alone = train_reference(forge, tmp_path / "alone", "adamw", [f"1,{STEPS}"], {})

    parameters = train_in_parts(forge, tmp_path / "parts", "adamw", layouts, stops, sync)

    assert largest_difference(parameters, alone) <= TOLERANCE
    assert count_samples(tmp_path / "parts") == ONCE


@pytest.mark.parametrize("sync", [LOCAL, DILOCO], ids=["local_sgd", "diloco"])
def test_with_rounds_it_is_as_many_replicas_in_each_part(
    forge: Forge, tmp_path: Path, sync: dict[str, Any]
) -> None:
    """From the end of a round: anchor and outer momentum go on, and replicas that come begin there.

    This is so for plain SGD. An optimizer with a memory has one in each replica: who comes takes
    over that of another.
    """
    phases = ["2,8", "3,16", f"1,{STEPS}"]
    simulated = train_reference(forge, tmp_path / "simulated", "sgd", phases, sync)

    layouts = [{"data": 2}, {"data": 3}, {"data": 1}]
    parameters = train_in_parts(forge, tmp_path / "parts", "sgd", layouts, [8, 16], sync)

    assert largest_difference(parameters, simulated) <= TOLERANCE
    assert count_samples(tmp_path / "parts") == ONCE


@pytest.mark.parametrize(
    ("mutation", "optimizer", "layouts", "sync"),
    [
        ("the optimizer starts anew", "adamw", [{"data": 2}, {"shard": 2}], {}),
        ("the loader skips a batch", "sgd", [{"shard": 2}, {"data": 1}], {}),
        ("what the servers held is lost", "sgd", [{"data": 2}, {"data": 3}], DILOCO),
    ],
)
def test_the_comparison_would_see_what_is_forgotten(
    forge: Forge,
    tmp_path: Path,
    mutation: str,
    optimizer: str,
    layouts: Layouts,
    sync: dict[str, Any],
) -> None:
    phases = ["2,8", f"3,{STEPS}"] if sync else [f"1,{STEPS}"]
    right = train_reference(forge, tmp_path / "right", optimizer, phases, sync)

    wrong = train_in_parts(forge, tmp_path / "wrong", optimizer, layouts, [8], sync, mutation)

    assert largest_difference(wrong, right) > SEEN
