"""From points to the documents that users get. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from api.metrics.follow import Piece
from api.metrics.points import Points, write_number, write_numbers
from api.metrics.schemas import MetricPoint, MetricSummary
from api.metrics.series import Summary


def render_summary(summary: Summary) -> MetricSummary:
    """Return the document of a summary."""
    step, time, value = summary.last
    low, high = summary.low_high or (None, None)
    return MetricSummary(
        key=summary.key,
        rank=summary.rank,
        count=summary.count,
        last=MetricPoint.model_construct(step=step, time=time, value=write_number(value)),
        min=low,
        max=high,
    )


def dump_series(key: str, rank: int, attempt: int | None, count: int, points: Points) -> bytes:
    """Return the JSON of a `MetricSeries`; a model would look at each point again."""
    document = {
        "object": "metric_series",
        "key": key,
        "rank": rank,
        "attempt": attempt,
        "count": count,
        "steps": points.steps.tolist(),
        "times": points.times.tolist(),
        "values": write_numbers(points.values),
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False).encode()


def render_piece(piece: Piece, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the points of a piece as a stream has them.

    Args:
        numbers: attempt id to number.
    """
    attempt = numbers.get(piece.attempt_id, 0)
    points = piece.points
    return [
        {
            "key": piece.key,
            "rank": piece.rank,
            "attempt": attempt,
            "step": step,
            "time": time,
            "value": write_number(value),
        }
        for step, time, value in zip(points.steps, points.times, points.values, strict=True)
    ]
