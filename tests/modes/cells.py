"""The table recipe x parallel x sync: each cell runs, or is refused at submit with a code.

What the rules say is here; that a cell which they let through does run is tested in
tests/component/train/test_mode_cells.py, and that the page shows this table in tests/docs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from api.recipes.catalogue import list_recipes
from scheduler.core.errors import Problem
from scheduler.core.mode_rules import check_modes
from scheduler.core.spec import JobSpec, Parallel, Sync

_DESCRIBED = list_recipes(Path(__file__).resolve().parents[2] / "sdk/src/trainmaster/recipes")
RECIPES = {name: recipe for name, recipe in _DESCRIBED.items() if name != "export"}
"""Those that train; an export copies a checkpoint, with one worker."""

PARALLELS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "one worker": {},
        "data 2": {"data": 2},
        "shard 2": {"shard": 2},
        "data 2 x shard 2": {"data": 2, "shard": 2},
        "tensor 2": {"tensor": 2},
        "pipeline 2": {"pipeline": 2},
        "shard 2 x tensor 2": {"shard": 2, "tensor": 2},
        "tensor 2 x pipeline 2": {"tensor": 2, "pipeline": 2},
        "data 2 x tensor 2 x pipeline 2": {"data": 2, "tensor": 2, "pipeline": 2},
    }
)
SYNCS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "allreduce": {},
        "allreduce, bf16": {"compression": "bf16"},
        "local_sgd": {"mode": "local_sgd", "every": 2},
        "diloco, int8": {"mode": "diloco", "every": 2, "compression": "int8"},
        "parameter_server, staleness 0": {"mode": "parameter_server", "staleness": 0},
        "parameter_server, staleness 2": {"mode": "parameter_server", "staleness": 2},
        "parameter_server, asynchronous": {"mode": "parameter_server"},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination, and what the service says to it."""

    recipe: str
    parallel: str
    sync: str
    problems: tuple[Problem, ...]

    @property
    def runs(self) -> bool:
        """Whether it is accepted."""
        return not self.problems

    @property
    def num_ranks(self) -> int:
        """Workers of the job."""
        return Parallel(**PARALLELS[self.parallel]).num_workers


def iter_cells() -> Iterator[Cell]:
    """Yield the whole table, row by row."""
    for recipe in sorted(RECIPES):
        for parallel, counts in PARALLELS.items():
            for sync, fields in SYNCS.items():
                spec = JobSpec(recipe=recipe, parallel=Parallel(**counts), sync=Sync(**fields))
                problems = tuple(check_modes(spec, RECIPES[recipe].splits))
                yield Cell(recipe=recipe, parallel=parallel, sync=sync, problems=problems)


def render_table() -> str:
    """Return the table as a page shows it, with the reason of each refusal below."""
    cells = {(cell.recipe, cell.parallel, cell.sync): cell for cell in iter_cells()}
    lines: list[str] = []
    for recipe in sorted(RECIPES):
        lines += ["", f"### {recipe}", "", f"| | {' | '.join(SYNCS)} |"]
        lines.append("|---" * (len(SYNCS) + 1) + "|")
        for parallel in PARALLELS:
            row = [_show(cells[recipe, parallel, sync]) for sync in SYNCS]
            lines.append(f"| {parallel} | {' | '.join(row)} |")
    return "\n".join(lines).strip() + "\n"


def _show(cell: Cell) -> str:
    return "runs" if cell.runs else f"`{cell.problems[0].code}`"


if __name__ == "__main__":
    print(render_table(), end="")
