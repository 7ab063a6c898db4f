"""Reading what a job has measured: one series, or a summary of each. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from api.metrics.lineage import join_attempts
from api.metrics.points import Points, find_range, unpack
from models import Attempt, MetricChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFilter:
    """Which points are wanted.

    Attributes:
        attempt_id: the points of this attempt as they came; None joins all attempts.
    """

    job_id: str
    key: str | None = None
    rank: int | None = None
    attempt_id: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on chunks."""
        wanted = [MetricChunk.job_id == self.job_id]
        if self.key is not None:
            wanted.append(MetricChunk.key == self.key)
        if self.rank is not None:
            wanted.append(MetricChunk.rank == self.rank)
        if self.attempt_id is not None:
            wanted.append(MetricChunk.attempt_id == self.attempt_id)
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is known of one metric of one rank.

    Attributes:
        low_high: least and greatest finite value, None when there is none.
        last: step, time and value of the newest point.
    """

    key: str
    rank: int
    count: int
    low_high: tuple[float, float] | None
    last: tuple[int, float, float]


def find_rank(session: Session, wanted: SeriesFilter) -> int | None:
    """Return the lowest rank that has logged what is wanted, None when none has."""
    return session.scalar(select(func.min(MetricChunk.rank)).where(*wanted.conditions()))


def read_series(session: Session, wanted: SeriesFilter) -> Points:
    """Return the points of one key and rank; of several attempts, what was redone once."""
    chunks = session.execute(
        select(Attempt.number, MetricChunk.steps, MetricChunk.times, MetricChunk.values)
        .join(Attempt, Attempt.id == MetricChunk.attempt_id)
        .where(*wanted.conditions())
        .order_by(MetricChunk.id)
    )
    attempts: dict[int, Points] = {}
    for number, steps, times, values in chunks:
        attempts.setdefault(number, Points()).extend(unpack(steps, times, values))
    return join_attempts([attempts[number] for number in sorted(attempts)])


def list_summaries(session: Session, wanted: SeriesFilter) -> list[Summary]:
    """Return a summary of each key and rank, in the order of their names."""
    groups = session.execute(
        select(
            MetricChunk.key,
            MetricChunk.rank,
            func.sum(MetricChunk.count),
            func.min(MetricChunk.value_min),
            func.max(MetricChunk.value_max),
            func.max(MetricChunk.id),
            func.count(func.distinct(MetricChunk.attempt_id)),
        )
        .where(*wanted.conditions())
        .group_by(MetricChunk.key, MetricChunk.rank)
        .order_by(MetricChunk.key, MetricChunk.rank)
    ).all()
    lasts = _read_lasts(session, [group[5] for group in groups])
    summaries = []
    for key, rank, stored, low, high, last_id, num_attempts in groups:
        count, low_high = int(stored), None if low is None or high is None else (low, high)
        if num_attempts > 1:
            # What was redone counts once, which only the points can tell.
            one = SeriesFilter(job_id=wanted.job_id, key=key, rank=rank)
            points = read_series(session, one)
            count, low_high = len(points), find_range(points.values)
        summaries.append(
            Summary(key=key, rank=rank, count=count, low_high=low_high, last=lasts[last_id])
        )
    return summaries


def _read_lasts(session: Session, chunk_ids: Sequence[int]) -> dict[int, tuple[int, float, float]]:
    lasts = {}
    for start in range(0, len(chunk_ids), 500):
        rows = session.execute(
            select(MetricChunk.id, MetricChunk.steps, MetricChunk.times, MetricChunk.values).where(
                MetricChunk.id.in_(chunk_ids[start : start + 500])
            )
        )
        for chunk_id, steps, times, values in rows:
            last = unpack(steps[-8:], times[-8:], values[-8:])
            lasts[chunk_id] = (last.steps[0], last.times[0], last.values[0])
    return lasts
