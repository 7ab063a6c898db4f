"""Stops running jobs whose GPU-hours are used: their own, or the month's of project and user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from models.job import Job
from models.queries.attempts import ask_stop
from models.queries.budgets import (
    GpuHolder,
    Key,
    has_month_budgets,
    list_gpu_holders,
    pick_budgets,
    read_month_budgets,
)
from scheduler.core.budget import MonthBudget, find_spent
from scheduler.core.reasons import Reason
from scheduler.core.states import JobState
from scheduler.core.usage import count_ms

_STOPPABLE = (JobState.STARTING, JobState.RUNNING)


def stop_spent_jobs(session: Session, *, now: datetime) -> None:
    """Ask the jobs that have used up their GPU-hours to save and stop."""
    # Most jobs have no limit of this kind, and this runs every second.
    has_months = has_month_budgets(session)
    holders = list_gpu_holders(session, limited_only=not has_months)
    budgets = read_month_budgets(session, holders, now=now) if has_months else {}
    for holder in holders:
        reason = _find_spent(holder, budgets, now)
        job = None if reason is None else session.get_one(Job, holder.job_id)
        if job is not None and reason is not None and job.state in _STOPPABLE:
            ask_stop(session, job, reason=reason, now=now)


def _find_spent(
    holder: GpuHolder, budgets: Mapping[Key, MonthBudget], now: datetime
) -> Reason | None:
    gpu_ms = holder.gpu_ms + holder.num_gpus * count_ms(holder.since, now)
    months = pick_budgets(budgets, holder.keys)
    return find_spent(holder.gpu_hours, gpu_ms=gpu_ms, months=months)
