"""Where to cut a row of things into parts that cost about the same. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def balance(costs: Sequence[int], parts: int) -> list[int]:
    """Return where to cut a row into parts such that the dearest part is as cheap as can be.

    Args:
        costs: one for each in the row; at least as many as parts.
        parts: how many, none of them empty.

    Returns:
        first of each part, and the end of the last: `parts` + 1 numbers.
    """
    sums = [0, *itertools.accumulate(costs)]
    # best[stop]: the cost of the dearest part, and the cuts, for the row up to `stop`.
    best: dict[int, tuple[int, list[int]]] = {0: (0, [0])}
    for part in range(1, parts + 1):
        best = {
            stop: min(
                (max(best[first][0], sums[stop] - sums[first]), [*best[first][1], stop])
                for first in best
                if first < stop
            )
            for stop in range(part, len(costs) - (parts - part) + 1)
        }
    return best[len(costs)][1]
