"""However many replicas share a batch, the training is that of one process on the whole batch."""

import collections
import functools
import json
from pathlib import Path

import pytest

from tests.component.train.ranks import SCRIPTS, Forge

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "equivalence.py"
# Twenty-one steps in double precision, whose sums differ in order only: a few hundred roundings
# of 1e-16 each. A wrong weight shows as 1e-4 and more.
TOLERANCE = 1e-12
SIZES = [
    pytest.param(96, id="the batches divide evenly"),
    pytest.param(103, id="the last batch is 7, an uneven share for each"),
    pytest.param(97, id="the last batch is 1, so that some have no share"),
]


def read_parameters(folder: Path) -> list[float]:
    """Return what a run has written."""
    parameters: list[float] = json.loads((folder / "parameters.json").read_text())
    return parameters


def largest_difference(one: list[float], other: list[float]) -> float:
    """Return the distance in the largest component."""
    assert len(one) == len(other) > 0
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def reference(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory
) -> "functools.partial[list[float]]":
    """Parameters after training in plain torch, by optimizer and number of samples."""

    @functools.cache
    def train(optimizer: str, size: int) -> list[float]:
        folder = tmp_path_factory.mktemp("reference")
        _session_forge.run(SCRIPT, folder, "reference", optimizer, str(size), "16")
        return read_parameters(folder)

    return functools.partial(train)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_replicas_train_as_one_process_does(
    forge: Forge,
    tmp_path: Path,
    reference: "functools.partial[list[float]]",
    optimizer: str,
    ranks: int,
    size: int,
) -> None:
    forge.run(SCRIPT, tmp_path, "ours", optimizer, str(size), "16", ranks=ranks)

    assert largest_difference(read_parameters(tmp_path), reference(optimizer, size)) <= TOLERANCE


@pytest.mark.parametrize(
    ("mutation", "size"),
    [
        ("every share counts the same", 103),
        ("every share counts the same", 97),
        ("gradients are added, not averaged", 96),
        ("gradients stay where they are", 96),
    ],
)
def test_the_comparison_would_see_a_mistake(
    forge: Forge,
    tmp_path: Path,
    reference: "functools.partial[list[float]]",
    mutation: str,
    size: int,
) -> None:
    forge.run(SCRIPT, tmp_path, "ours", "sgd", str(size), "16", mutation, ranks=3)

    assert largest_difference(read_parameters(tmp_path), reference("sgd", size)) > 1e-6


@pytest.mark.parametrize(
    ("compression", "least", "most"),
    [
        # Relative error of one rounding, times some learning rate x gradient x 21 steps of order 1;
        # below the least, nothing can have been rounded.
        pytest.param("fp16", 2.0**-24, 2.0**-9, id="fp16: 11 bits"),
        pytest.param("bf16", 2.0**-20, 2.0**-6, id="bf16: 8 bits"),
    ],
)
def test_compressed_gradients_are_rounded_and_no_worse(
    forge: Forge,
    tmp_path: Path,
    reference: "functools.partial[list[float]]",
    compression: str,
    least: float,
    most: float,
) -> None:
    sync = {"mode": "allreduce", "compression": compression}

    forge.run(SCRIPT, tmp_path, "ours", "sgd", "103", "16", ranks=3, description={"sync": sync})

    gap = largest_difference(read_parameters(tmp_path), reference("sgd", 103))
    assert least < gap < most


@pytest.mark.parametrize(("mutation", "are_same"), [("none", True), ("buffers stay apart", False)])
def test_every_step_begins_with_the_same_running_statistics_on_all_ranks(
    forge: Forge, tmp_path: Path, mutation: str, are_same: bool
) -> None:
    gang = forge.run(SCRIPTS / "with_buffers.py", tmp_path, mutation, ranks=2)

    assert gang.said("begun", 0)
    assert (gang.said("begun", 0) == gang.said("begun", 1)) == are_same


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 2)])
def test_another_number_of_replicas_goes_on_where_the_first_stopped(
    forge: Forge,
    tmp_path: Path,
    reference: "functools.partial[list[float]]",
    before: int,
    after: int,
) -> None:
    common = ("ours", "adamw", "103", "16", "none")
    forge.run(SCRIPT, tmp_path, *common, "10", ranks=before)
    (tmp_path / "parameters.json").unlink()

    forge.run(SCRIPT, tmp_path, *common, ranks=after, description={"resume": "trainmaster-runs/1"})

    assert largest_difference(read_parameters(tmp_path), reference("adamw", 103)) <= TOLERANCE
    ledgers = [entry for path in tmp_path.glob("used-*") for entry in read_ledger(path)]
    assert collections.Counter(ledgers) == {
        (epoch, sample): 1 for epoch in range(3) for sample in range(103)
    }


def read_ledger(path: Path) -> list[tuple[int, int]]:
    """Return epoch and number of each sample that a rank has used."""
    return [(epoch, sample) for epoch, sample in map(json.loads, path.read_text().splitlines())]
