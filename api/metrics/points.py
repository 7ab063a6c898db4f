"""Metric points as packed columns: what a chunk holds. Pure; knows no row and no request."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How JSON carries what it has no number for."""

_IS_BIG_ENDIAN = sys.byteorder == "big"


def _steps() -> array[int]:
    return array("q")


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Points:
    """Columns of equal length: steps (int64), times (Unix seconds) and values (float64)."""

    steps: array[int] = field(default_factory=_steps)
    times: array[float] = field(default_factory=_floats)
    values: array[float] = field(default_factory=_floats)

    def __len__(self) -> int:
        return len(self.steps)

    def extend(self, other: Points) -> None:
        """Append the points of another."""
        self.steps.extend(other.steps)
        self.times.extend(other.times)
        self.values.extend(other.values)

    def take(self, indices: Sequence[int]) -> Points:
        """Return the points at `indices`, in that order."""
        return Points(
            array("q", map(self.steps.__getitem__, indices)),
            array("d", map(self.times.__getitem__, indices)),
            array("d", map(self.values.__getitem__, indices)),
        )

    def cut(self, start: int, stop: int | None = None) -> Points:
        """Return the points from index `start` up to and without `stop`."""
        return Points(self.steps[start:stop], self.times[start:stop], self.values[start:stop])


def pack(column: array[int] | array[float]) -> bytes:
    """Return the column as little-endian bytes."""
    if _IS_BIG_ENDIAN:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def unpack_steps(data: bytes) -> array[int]:
    """Return a column of little-endian int64."""
    column = array("q")
    column.frombytes(data)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column


def unpack_floats(data: bytes) -> array[float]:
    """Return a column of little-endian float64."""
    column = array("d")
    column.frombytes(data)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column


def unpack(steps: bytes, times: bytes, values: bytes) -> Points:
    """Return the points of three packed columns."""
    return Points(unpack_steps(steps), unpack_floats(times), unpack_floats(values))


def find_range(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the least and the greatest finite value, None when there is none."""
    if not math.isfinite(sum(values)):  # a sum may overflow, so this only says: look closer
        values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    return min(values), max(values)


def write_number(value: float) -> float | str:
    """Return `value` as JSON carries it."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def write_numbers(values: Iterable[float]) -> list[float | str]:
    """Return `values` as JSON carries them."""
    listed = list(values)
    if math.isfinite(sum(listed)):
        return listed  # type: ignore[return-value]  # floats only, and a list is invariant
    return [write_number(value) for value in listed]
