"""What a replay's figures look like to people and to programs. Prints nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from scheduler.sim.metrics import Metrics

_HEADINGS = ("policy", *(field.name for field in dataclasses.fields(Metrics)))


def render_table(results: Mapping[str, Metrics]) -> str:
    """Return one line for each policy under a line of headings, figures to the right."""
    lines = [_HEADINGS]
    for policy, metrics in results.items():
        lines.append((policy, *(_render(value) for value in dataclasses.astuple(metrics))))
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def render_json(results: Mapping[str, Metrics]) -> str:
    """Return one object for one policy, a list of objects for several; each names its policy."""
    documents = [
        {"policy": policy} | dataclasses.asdict(metrics) for policy, metrics in results.items()
    ]
    return json.dumps(documents[0] if len(documents) == 1 else documents) + "\n"


def _render(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
