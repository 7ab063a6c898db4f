"""Fewer points that look the same: minimum and maximum of each bucket. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from api.metrics.points import Points


def downsample(points: Points, limit: int) -> Points:
    """Return at most `limit` (>= 1) of the points, in their order.

    The first and the last are always among them (of one, the last). Between them the points are
    cut into equal buckets by index, and each gives its least and its greatest value, so that no
    peak is lost. NaN is passed over where a bucket has anything else.
    """
    count = len(points)
    if count <= limit:
        return points
    if limit == 1:
        return points.cut(count - 1)
    num_buckets = (limit - 2) // 2
    kept = [0]
    inner = count - 2
    for bucket in range(num_buckets):
        start = 1 + bucket * inner // num_buckets
        stop = 1 + (bucket + 1) * inner // num_buckets
        kept.extend(_pick(points.values[start:stop], start))
    kept.append(count - 1)
    return points.take(kept)


def _pick(values: array[float], start: int) -> Sequence[int]:
    total = sum(values)
    if total != total:  # NaN, or infinities of both signs
        return _pick_around_nan(values, start)
    low, high = values.index(min(values)), values.index(max(values))
    if low == high:
        return (start + low,)
    return (start + low, start + high) if low < high else (start + high, start + low)


def _pick_around_nan(values: array[float], start: int) -> Sequence[int]:
    numbers = [index for index, value in enumerate(values) if value == value]
    if not numbers:
        return (start,)
    low = min(numbers, key=values.__getitem__)
    high = max(numbers, key=values.__getitem__)
    return [start + index for index in sorted({low, high})]
