"""How things read on a terminal: tables, sizes, times, and text from strangers made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|[\x1b][\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC: titles, clipboards
    r"|\x1b[ -/]*[0-~]"  # the two-character rest
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    r"\ud800-\udfff]"  # half characters, which no terminal can be given
)
_BARS = "▁▂▃▄▅▆▇█"
_STATE_COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "starting": "cyan",
    "finalizing": "cyan",
    "failed": "red",
    "stopping": "yellow",
    "paused": "yellow",
    "cancelled": "yellow",
}


def clean_for_terminal(text: str) -> str:
    """Return the text without anything that a terminal would obey, but tabs and newlines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def clean_cell(text: str) -> str:
    """Return text for one cell of a table: one line, nothing that a terminal would obey."""
    return " ".join(clean_for_terminal(text).split())


def colour_of(state: str) -> str:
    """Return the colour that a state has everywhere."""
    return _STATE_COLOURS.get(state, "white")


def format_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None
) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        head: the names of the columns.
        rows: the cells, already clean.
        width: of the terminal, to which lines are cut; None separates by tabs and cuts nothing.
    """
    if width is None:
        yield from ("\t".join(row) for row in [head, *rows])
        return
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        yield line if len(line) <= width else line[: width - 1] + "…"


def format_bytes(num_bytes: float) -> str:
    """Return a size in the largest binary unit that leaves a number of at least one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration in at most two units: `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def format_age(instant: datetime | None, *, now: datetime | None = None) -> str:
    """Return how long ago something was, `-` if it has not been."""
    if instant is None:
        return "-"
    return format_seconds(((now or datetime.now(timezone.utc)) - instant).total_seconds())


def format_number(value: object) -> str:
    """Return a measured number with four significant digits, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean_cell(str(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sparkline(values: Sequence[float], *, width: int) -> str:
    """Return the last values as a line of little bars; gaps where a value is not finite."""
    recent = list(values)[-width:]
    finite = [value for value in recent if abs(value) != float("inf") and value == value]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    top = len(_BARS) - 1
    return "".join(
        _BARS[round((value - low) / span * top)] if low <= value <= low + span else " "
        for value in recent
    )
