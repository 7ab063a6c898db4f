"""What a benchmark hands back: a figure beside its baseline, and whether the target is reached.

Pure: knows neither what was measured nor how.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Series:
    """Repeated measurements of one thing; what is said of it is the median."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def as_document(self) -> dict[str, float | int]:
        """Return what a reader of the JSON needs."""
        return {
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "count": len(self.values),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on the figure itself or on its ratio to the baseline."""

    of: Literal["figure", "ratio"]
    bound: Literal["at most", "at least"]
    limit: float

    def is_reached(self, value: float) -> bool:
        """Whether `value` is on the right side."""
        return value <= self.limit if self.bound == "at most" else value >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        values, baseline: measured in turns, so the n-th of both belong together.
        baseline_name: what is beside it.
        target: None where the figure explains another one.
        interval: whether the ratio carries a 95 % interval.
        details: what explains the figure; JSON types.
    """

    name: str
    unit: str
    values: Series
    baseline: Series | None = None
    baseline_name: str = ""
    target: Target | None = None
    interval: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> Series | None:
        """Of each pair, the figure over its baseline."""
        if self.baseline is None:
            return None
        pairs = zip(self.values.values, self.baseline.values, strict=True)
        return Series(tuple(value / base for value, base in pairs))

    @property
    def is_reached(self) -> bool:
        """Whether the target is reached; a figure without one always does."""
        if self.target is None:
            return True
        judged = self.values if self.target.of == "figure" else self.ratios
        assert judged is not None
        return self.target.is_reached(judged.median)

    def as_document(self) -> dict[str, Any]:
        """Return the figure as JSON types."""
        ratios = self.ratios
        return {
            "name": self.name,
            "unit": self.unit,
            "figure": self.values.as_document(),
            "baseline_name": self.baseline_name or None,
            "baseline": self.baseline.as_document() if self.baseline else None,
            "ratio": ratios.as_document() if ratios else None,
            "ratio_interval_95": median_interval(ratios) if ratios and self.interval else None,
            "target": None
            if self.target is None
            else {"of": self.target.of, "bound": self.target.bound, "limit": self.target.limit},
            "reached": self.is_reached if self.target else None,
            "details": dict(self.details),
        }


def median_interval(series: Series, level: float = 0.95) -> tuple[float, float]:
    """Return the bootstrap percentile interval of the median; same values, same interval."""
    chance = random.Random(0)
    count = len(series.values)
    medians = sorted(
        statistics.median(chance.choices(series.values, k=count)) for _ in range(_RESAMPLES)
    )
    tail = (1 - level) / 2
    return medians[int(tail * _RESAMPLES)], medians[int((1 - tail) * _RESAMPLES) - 1]


def render_table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned columns; in brackets the least and the greatest value."""
    head = ("figure", "measured", "baseline", "ratio", "target", "reached")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    baseline = (
        f"{_show(figure.baseline, figure.unit)} {figure.baseline_name}" if figure.baseline else "-"
    )
    return (
        figure.name,
        _show(figure.values, figure.unit),
        baseline,
        _show_ratio(figure),
        _show_target(figure),
        "-" if figure.target is None else "yes" if figure.is_reached else "NO",
    )


def _show_ratio(figure: Figure) -> str:
    ratios = figure.ratios
    if ratios is None:
        return "-"
    if not figure.interval:
        return _plain(ratios.median)
    low, high = median_interval(ratios)
    return f"{ratios.median:.4f} (95 %: {low:.4f} to {high:.4f})"


def _show_target(figure: Figure) -> str:
    target = figure.target
    if target is None:
        return "-"
    sign = "<=" if target.bound == "at most" else ">="
    return f"{sign} {_plain(target.limit)} {'x' if target.of == 'ratio' else figure.unit}"


def _show(series: Series, unit: str) -> str:
    text = f"{_plain(series.median)} {unit}"
    if len(series.values) == 1:
        return text
    return f"{text} [{_plain(min(series.values))}, {_plain(max(series.values))}]"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
