"""Every cell of the table recipe x parallel x sync that is not refused trains to its end.

Where the mode is another way to compute what one process does, the losses are those of one process.
"""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge, read_values
from tests.modes.cells import PARALLELS, RECIPES, SYNCS, Cell, iter_cells

pytestmark = pytest.mark.torch

CONFIGS: dict[str, dict[str, Any]] = {
    "image-classifier": {"epochs": 3, "batch_size": 200, "hidden": 16, "dropout": 0.0, "shift": 0},
    "tabular": {"epochs": 3, "batch_size": 100, "hidden": 16, "layers": 3, "dropout": 0.0},
    "lm": {
        "layers": 2, "heads": 2, "width": 32, "context": 32, "batch_size": 8, "steps": 5,
        "validate_every": 1, "validation_tokens": 1024, "dropout": 0.0,
    },
}  # fmt: skip
# In double precision sums differ in their order only: in ten steps a few roundings of losses of
# order 1 (seen: 1e-15). The least mistake below changes one by more than 1e-6.
TOLERANCE = 1e-12
SEEN = 1e-6
AS_ONE_PROCESS = ("allreduce", "parameter_server, staleness 0")

Curve = list[float]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some text to learn."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"chapter {number}: all is quiet. " * 100)
    return folder


@pytest.fixture(scope="module")
def alone(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory, text: Path
) -> Callable[..., Curve]:
    """The held-out losses of one process, by recipe and whether gradients are clipped."""

    @functools.cache
    def run(recipe: str, *, clips: bool = True) -> Curve:
        cell = Cell(recipe=recipe, parallel="one worker", sync="allreduce", problems=())
        folder = tmp_path_factory.mktemp("alone")
        return train_in_double(_session_forge, folder, text, cell, clips=clips)

    return run


def describe(cell: Cell, text: Path, **config: Any) -> dict[str, Any]:
    """Return what the ranks of a cell are told."""
    return {
        "config": {**CONFIGS[cell.recipe], **config},
        "inputs": {"text": str(text)} if cell.recipe == "lm" else {},
        "parallel": PARALLELS[cell.parallel],
        "sync": SYNCS[cell.sync],
    }


def train_in_double(
    forge: Forge,
    folder: Path,
    text: Path,
    cell: Cell,
    *,
    clips: bool = True,
    mutation: str = "none",
) -> Curve:
    """Return the losses on held-out data, as all ranks of a cell measure them."""
    config = {} if clips or cell.recipe != "lm" else {"clip": 0.0}
    forge.run(
        SCRIPTS / "in_double.py",
        folder,
        RECIPES[cell.recipe].module,
        mutation,
        ranks=cell.num_ranks,
        description=describe(cell, text, **config),
    )
    return [value for _, value in read_values(records_of(folder) / "metrics.jsonl", "val/loss")]


def records_of(folder: Path) -> Path:
    """Return where the only run in a folder has left its records, a checkpoint among them."""
    records = folder / "trainmaster-runs" / "1"
    (meta,) = records.glob("checkpoints/ready-*/files/meta.json")
    assert json.loads(meta.read_text())["models"] == ["model"]
    return records


def is_clipped_as_one_process_does(cell: Cell) -> bool:
    """Whether the norm is that of the whole batch's gradient; a replica clips what it pushes."""
    return cell.sync == "allreduce"


def largest_difference(one: Curve, other: Curve) -> float:
    """Return the distance where two curves differ most."""
    assert len(one) == len(other) >= 3
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def cells(*, as_one_process: bool) -> list[Any]:
    """Return the cells that are not refused, of one kind."""
    return [
        pytest.param(cell, id=f"{cell.recipe}: {cell.parallel}, {cell.sync}")
        for cell in iter_cells()
        if cell.runs and (cell.sync in AS_ONE_PROCESS) == as_one_process
    ]


@pytest.mark.parametrize("cell", cells(as_one_process=False))
def test_what_is_not_refused_runs(forge: Forge, tmp_path: Path, text: Path, cell: Cell) -> None:
    forge.run(
        RECIPES[cell.recipe].module,
        tmp_path,
        ranks=cell.num_ranks,
        description=describe(cell, text),
    )

    losses = read_values(records_of(tmp_path) / "metrics.jsonl", "val/loss")
    assert len(losses) >= 3
    assert all(math.isfinite(loss) for _, loss in losses)
    assert losses[-1][1] < losses[0][1]


@pytest.mark.parametrize("cell", cells(as_one_process=True))
def test_what_computes_as_one_process_has_its_losses(
    forge: Forge, tmp_path: Path, text: Path, alone: Callable[..., Curve], cell: Cell
) -> None:
    clips = is_clipped_as_one_process_does(cell)

    losses = train_in_double(forge, tmp_path, text, cell, clips=clips)

    assert largest_difference(losses, alone(cell.recipe, clips=clips)) <= TOLERANCE


@pytest.mark.parametrize(
    ("mutation", "recipe", "parallel", "sync"),
    [
        ("gradients stay where they are", "image-classifier", "data 2", "allreduce"),
        ("add up", "tabular", "data 2", "parameter_server, staleness 0"),
        ("gradients of shards are not added", "tabular", "shard 2", "allreduce"),
        ("parts of a layer's output are not added", "lm", "tensor 2", "allreduce"),
        ("tied parameters stay apart", "lm", "pipeline 2", "allreduce"),
        ("the norm is that of the own part", "lm", "shard 2 x tensor 2", "allreduce"),
    ],
)
def test_the_comparison_would_see_a_mistake(
    forge: Forge,
    tmp_path: Path,
    text: Path,
    alone: Callable[..., Curve],
    mutation: str,
    recipe: str,
    parallel: str,
    sync: str,
) -> None:
    cell = Cell(recipe=recipe, parallel=parallel, sync=sync, problems=())

    losses = train_in_double(forge, tmp_path, text, cell, mutation=mutation)

    assert largest_difference(losses, alone(recipe)) > SEEN
