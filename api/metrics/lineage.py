"""One series out of several attempts: what was redone is shown once. Pure.

An attempt that resumes at step 250 logs 251, 252 … again, although the one before had come to 400.
What the job is now was trained by the later one, so from the first step that it has logged under
this key, the points of all earlier attempts are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.metrics.points import Points


def join_attempts(attempts: Sequence[Points]) -> Points:
    """Return the series of the job; `attempts` are those of one key and rank, oldest first."""
    cuts: list[int | None] = []
    cut: int | None = None
    for points in reversed(attempts):
        cuts.append(cut)
        if len(points):
            first = min(points.steps)
            cut = first if cut is None else min(cut, first)
    joined = Points()
    for points, limit in zip(attempts, reversed(cuts), strict=True):
        joined.extend(_keep_below(points, limit))
    return joined


def _keep_below(points: Points, limit: int | None) -> Points:
    if limit is None or not len(points) or max(points.steps) < limit:
        return points
    return points.take([index for index, step in enumerate(points.steps) if step < limit])
