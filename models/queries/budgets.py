"""GPU-hours of the present month: what each quota gives, and what has been used of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from models.attempt import Allocation, Attempt
from models.job import Job
from models.queries.usage import read_spent
from models.quota import Quota
from scheduler.core.budget import MonthBudget
from scheduler.core.usage import begin_month, count_ms, hours_to_ms, name_month

Key = tuple[str, str | None]
"""A project, and one user of it; None for the project as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHolder:
    """A job whose live attempt holds GPUs.

    Attributes:
        gpu_ms: of its ended attempts.
        gpu_hours: its own limit, None when it has none.
    """

    job_id: str
    project_id: str
    user_id: str | None
    num_gpus: int
    since: datetime
    gpu_ms: int
    gpu_hours: float | None

    @property
    def keys(self) -> tuple[Key, ...]:
        """Whose budgets it uses."""
        return list_keys(self.project_id, self.user_id)


def list_keys(project_id: str, user_id: str | None) -> tuple[Key, ...]:
    """Return whose budgets a job of this user uses."""
    of_project: Key = (project_id, None)
    return (of_project,) if user_id is None else (of_project, (project_id, user_id))


def has_month_budgets(session: Session) -> bool:
    """Whether any quota limits the GPU-hours of a month."""
    found = select(Quota.id).where(Quota.gpu_hours_per_month.is_not(None)).limit(1)
    return session.scalar(found) is not None


def list_gpu_holders(session: Session, *, limited_only: bool = False) -> Sequence[GpuHolder]:
    """Return the jobs that hold GPUs now, by id; on demand only those with a limit of their own."""
    limit = Job.spec[("limits", "gpu_hours")].as_float()
    rows = session.execute(
        select(
            Job.id,
            Job.project_id,
            Job.created_by,
            func.count(Allocation.gpu_index).label("num_gpus"),
            Attempt.created_at,
            Job.gpu_ms,
            limit.label("gpu_hours"),
        )
        .select_from(Allocation)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(Allocation.gpu_index.is_not(None), Attempt.ended_at.is_(None))
        .where(limit.is_not(None) if limited_only else true())
        .group_by(Attempt.id, Job.id)
        .order_by(Job.id)
    )
    return [_holder(row) for row in rows]


def read_month_budgets(
    session: Session, holders: Sequence[GpuHolder], *, now: datetime
) -> Mapping[Key, MonthBudget]:
    """Return the budget of each quota that has one, with what has been used of it up to `now`."""
    rows = session.execute(
        select(Quota.project_id, Quota.user_id, Quota.gpu_hours_per_month).where(
            Quota.gpu_hours_per_month.is_not(None)
        )
    ).all()
    if not rows:
        return {}
    spent_ms = read_month_use(session, holders, now=now)
    return {
        (project_id, user_id): MonthBudget(
            budget_gpu_ms=None if gpu_hours is None else hours_to_ms(gpu_hours),
            spent_gpu_ms=spent_ms.get((project_id, user_id), 0),
        )
        for project_id, user_id, gpu_hours in rows
    }


def read_month_use(
    session: Session, holders: Sequence[GpuHolder], *, now: datetime
) -> dict[Key, int]:
    """Return the GPU-milliseconds of the present month, by ended attempts and those that run."""
    spent_ms: dict[Key, int] = dict(read_spent(session, month=name_month(now)))
    since = begin_month(now)
    for holder in holders:
        gpu_ms = holder.num_gpus * count_ms(max(holder.since, since), now)
        for key in holder.keys:
            spent_ms[key] = spent_ms.get(key, 0) + gpu_ms
    return spent_ms


def pick_budgets(budgets: Mapping[Key, MonthBudget], keys: Sequence[Key]) -> Iterator[MonthBudget]:
    """Yield the budgets of `keys`, where there are any."""
    for key in keys:
        if key in budgets:
            yield budgets[key]


def _holder(row: Any) -> GpuHolder:
    return GpuHolder(
        job_id=row.id,
        project_id=row.project_id,
        user_id=row.created_by,
        num_gpus=row.num_gpus,
        since=row.created_at,
        gpu_ms=row.gpu_ms,
        gpu_hours=row.gpu_hours,
    )
