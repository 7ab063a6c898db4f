"""Keeping metric points: exactly once, in chunks of packed columns. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Row, Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from api.metrics.batch import Batch, InvalidBatch
from api.metrics.points import Points, find_range, pack
from models import MetricChunk, MetricStream, announce
from scheduler.core.errors import SequenceMismatch

CHUNK_POINTS = 1024
"""A chunk with fewer points is filled up."""

# A column this long gets its own chunk: reading the last one to lengthen it would cost more.
_OWN_CHUNK_POINTS = 256
_GROWING = ("count", "steps", "times", "values", "value_min", "value_max")


def metrics_topic(job_id: str) -> str:
    """Return the doorbell topic of a job's metrics."""
    return f"metrics:{job_id}"


def store_batch(session: Session, member: Membership, batch: Batch) -> int:
    """Keep the points of the batch and return how many lines of its stream are stored now.

    A batch that is already stored changes nothing.

    Raises:
        InvalidBatch: the rank does not run on this node.
        SequenceMismatch: the batch does not start where the stored lines end.
    """
    if batch.rank not in {each["rank"] for each in member.node.ranks}:
        raise InvalidBatch("/stream", "foreign_rank", "this rank does not run on this node")
    stored = session.get(MetricStream, (member.attempt.id, batch.stream))
    high_water = 0 if stored is None else stored.high_water
    end = batch.sequence + batch.count
    if end <= high_water:
        return high_water
    if batch.sequence != high_water:
        raise SequenceMismatch(high_water)
    if stored is None:
        row = MetricStream(attempt_id=member.attempt.id, stream=batch.stream, high_water=end)
        session.add(row)
        session.flush()
    else:
        raised = session.execute(
            update(MetricStream)
            .where(
                MetricStream.attempt_id == member.attempt.id,
                MetricStream.stream == batch.stream,
                MetricStream.high_water == high_water,
            )
            .values(high_water=end)
        )
        if raised.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE gives a cursor result
            raise SequenceMismatch(high_water)
    _store_columns(session, member, batch.rank, batch.columns)
    announce(session, metrics_topic(member.job.id))
    return end


def _store_columns(
    session: Session, member: Membership, rank: int, columns: Mapping[str, Points]
) -> None:
    short = [key for key, points in columns.items() if len(points) < _OWN_CHUNK_POINTS]
    tails = _find_tails(session, member.attempt.id, rank, short)
    new, longer = [], []
    for key, points in columns.items():
        tail = tails.get(key)
        if not len(points):
            continue
        if tail is None:
            new.append(_chunk(member, key, rank, points))
        else:
            longer.append(_lengthen(tail, points))
    if new:
        session.execute(insert(MetricChunk), new)
    if longer:
        # The table, not the class: rows that nobody has loaded need no bookkeeping.
        session.connection().execute(_LENGTHEN, longer)


_CHUNKS = cast("Table", MetricChunk.__table__)
_LENGTHEN = (
    _CHUNKS.update()
    .where(_CHUNKS.c.id == bindparam("chunk_id"))
    .values({name: bindparam(f"new_{name}") for name in _GROWING})
)


def _find_tails(
    session: Session, attempt_id: str, rank: int, keys: list[str]
) -> dict[str, Row[Any]]:
    """Return the last chunk of each key that has one with room."""
    if not keys:
        return {}
    last = (
        select(func.max(MetricChunk.id))
        .where(
            MetricChunk.attempt_id == attempt_id,
            MetricChunk.rank == rank,
            MetricChunk.key.in_(keys),
        )
        .group_by(MetricChunk.key)
    )
    rows = session.execute(
        select(
            _CHUNKS.c.id,
            _CHUNKS.c.key,
            _CHUNKS.c.count.label("num_points"),
            *(_CHUNKS.c[name] for name in _GROWING if name != "count"),
        ).where(_CHUNKS.c.id.in_(last), _CHUNKS.c.count < CHUNK_POINTS)
    )
    return {row.key: row for row in rows}


def _lengthen(tail: Row[Any], points: Points) -> dict[str, object]:
    known = [value for value in (tail.value_min, tail.value_max) if value is not None]
    both = [*known, *(find_range(points.values) or ())]
    return {
        "chunk_id": tail.id,
        "new_count": tail.num_points + len(points),
        "new_steps": tail.steps + pack(points.steps),
        "new_times": tail.times + pack(points.times),
        "new_values": tail.values + pack(points.values),
        "new_value_min": min(both, default=None),
        "new_value_max": max(both, default=None),
    }


def _chunk(member: Membership, key: str, rank: int, points: Points) -> dict[str, object]:
    low_high = find_range(points.values)
    return {
        "job_id": member.job.id,
        "attempt_id": member.attempt.id,
        "key": key,
        "rank": rank,
        "count": len(points),
        "steps": pack(points.steps),
        "times": pack(points.times),
        "values": pack(points.values),
        "value_min": None if low_high is None else low_high[0],
        "value_max": None if low_high is None else low_high[1],
    }
