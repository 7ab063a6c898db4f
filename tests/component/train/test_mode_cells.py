"""Every cell of the table recipe x parallel x sync that is not refused trains to its end."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import Forge, read_lines
from tests.modes.cells import PARALLELS, RECIPES, SYNCS, Cell, iter_cells

pytestmark = pytest.mark.torch

CONFIGS: dict[str, dict[str, Any]] = {
    "image-classifier": {"epochs": 1, "batch_size": 200, "hidden": 16},
    "tabular": {"epochs": 1, "batch_size": 100, "hidden": 16, "layers": 3},
    "lm": {
        "layers": 2, "heads": 2, "width": 32, "context": 32, "batch_size": 8, "steps": 5,
        "validate_every": 5, "validation_tokens": 1024,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some text to learn."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"chapter {number}: all is quiet. " * 100)
    return folder


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=f"{cell.recipe}: {cell.parallel}, {cell.sync}")
        for cell in iter_cells()
        if cell.runs
    ],
)
def test_what_is_not_refused_runs(forge: Forge, tmp_path: Path, text: Path, cell: Cell) -> None:
    description = {
        "config": CONFIGS[cell.recipe],
        "inputs": {"text": str(text)} if cell.recipe == "lm" else {},
        "parallel": PARALLELS[cell.parallel],
        "sync": SYNCS[cell.sync],
    }

    forge.run(RECIPES[cell.recipe].module, tmp_path, ranks=cell.num_ranks, description=description)

    run = tmp_path / "trainmaster-runs" / "1"
    losses = [
        line["values"]["train/loss"]
        for line in read_lines(run / "metrics.jsonl")
        if "train/loss" in line["values"]
    ]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    (meta,) = run.glob("checkpoints/ready-*/files/meta.json")
    assert json.loads(meta.read_text())["models"] == ["model"]
