"""Columns of a table as numbers that a network takes, by what the training rows show.

Numbers are brought to mean 0 and deviation 1, a missing one to 0; a category becomes a 1 in a place
of its own, and one that the training rows lack is none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trainmaster.recipes._tables import Column, UnusableTable

if TYPE_CHECKING:
    from collections.abc import Sequence

CATEGORIES_MAX = 1000


class Encoder:
    """How the columns of a table become numbers.

    Attributes:
        facts: what a reader needs to do the same; JSON values.
    """

    def __init__(self, columns: Sequence[Column], rows_N: np.ndarray[Any, Any]) -> None:
        """Look at some rows, and at no others.

        Raises:
            UnusableTable: a column has nothing in these rows, or too much.
        """
        self._columns = list(columns)
        self.facts = [_look(column, column.values_N[rows_N]) for column in columns]

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(len(each.get("categories", "1")) for each in self.facts)

    def encode(self, rows_N: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return some rows as float32 [N, width]."""
        parts = [
            _encode(column.values_N[rows_N], facts)
            for column, facts in zip(self._columns, self.facts)
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)


def mean_and_deviation(values_N: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return both; a deviation of 0 counts as 1, so that one may divide by it."""
    return float(values_N.mean()), float(values_N.std()) or 1.0


def _look(column: Column, values_N: np.ndarray[Any, Any]) -> dict[str, Any]:
    if column.is_text:
        categories = sorted(set(values_N.tolist()) - {""})
        if not 1 <= len(categories) <= CATEGORIES_MAX:
            raise UnusableTable(
                f"column {column.name} is text with {len(categories)} different values; up to "
                f"{CATEGORIES_MAX} can be told apart: leave it out, or group them"
            )
        return {"name": column.name, "categories": categories}
    if np.isinf(values_N).any():
        raise UnusableTable(f"column {column.name} has infinite values: leave those rows out")
    known_N = values_N[~np.isnan(values_N)]
    if len(known_N) == 0:
        raise UnusableTable(f"column {column.name} is empty in the training rows: leave it out")
    mean, deviation = mean_and_deviation(known_N)
    return {"name": column.name, "mean": mean, "deviation": deviation}


def _encode(values_N: np.ndarray[Any, Any], facts: dict[str, Any]) -> np.ndarray[Any, Any]:
    if "categories" in facts:
        encoded: np.ndarray[Any, Any] = values_N[:, None] == np.array(facts["categories"])
        return encoded
    standardized_N = (values_N - facts["mean"]) / facts["deviation"]
    return np.nan_to_num(standardized_N, posinf=0.0, neginf=0.0)[:, None]
