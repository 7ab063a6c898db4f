"""Rows of quotas, usage and queues → views."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.node import Queue
from models.project import Project
from models.quota import Quota, UsageMonth, UsageShare
from scheduler.core.cluster import QueueView, QuotaView, UsageView
from scheduler.core.deltas import RulesSeen
from scheduler.core.usage import hours_to_ms, name_month


def read_rules(session: Session, *, now: datetime) -> RulesSeen:
    """Return what projects may use and have used, and which queues are open."""
    rows = session.execute(select(Queue.name, Queue.pool, Queue.is_open).order_by(Queue.name))
    return RulesSeen(
        quotas=_read_quotas(session, now=now),
        usage=_read_usage(session),
        queues=tuple(
            QueueView(name=name, pool=pool, is_open=is_open) for name, pool, is_open in rows
        ),
    )


def _read_quotas(session: Session, *, now: datetime) -> tuple[QuotaView, ...]:
    statement = select(Quota, Project.name).join(Project, Project.id == Quota.project_id)
    # Sorted here: databases differ in where a NULL comes.
    rows = sorted(session.execute(statement), key=lambda row: (row.name, row.Quota.user_id or ""))
    spent_ms = _read_spent(session, name_month(now)) if rows else {}
    return tuple(
        QuotaView(
            project=project,
            user=quota.user_id or "",
            weight=quota.weight,
            guaranteed_gpus=quota.guaranteed_gpus,
            limit_gpus=quota.limit_gpus,
            may_borrow=quota.may_borrow,
            budget_gpu_ms=None
            if quota.gpu_hours_per_month is None
            else hours_to_ms(quota.gpu_hours_per_month),
            spent_gpu_ms=spent_ms.get((quota.project_id, quota.user_id), 0),
            priority_max=quota.priority_max,
        )
        for quota, project in rows
    )


def _read_spent(session: Session, month: str) -> dict[tuple[str, str | None], int]:
    """Return what each user, and under None what each project has had in `month`."""
    rows = session.execute(
        select(UsageMonth.project_id, UsageMonth.user_id, func.sum(UsageMonth.gpu_ms))
        .where(UsageMonth.month == month)
        .group_by(UsageMonth.project_id, UsageMonth.user_id)
    )
    spent_ms: dict[tuple[str, str | None], int] = {}
    for project_id, user_id, gpu_ms in rows:
        spent_ms[project_id, user_id] = int(gpu_ms)
        spent_ms[project_id, None] = spent_ms.get((project_id, None), 0) + int(gpu_ms)
    return spent_ms


def _read_usage(session: Session) -> tuple[UsageView, ...]:
    rows = session.execute(
        select(Project.name, UsageShare.user_id, UsageShare.gpu_ms, UsageShare.as_of_at)
        .join(Project, Project.id == UsageShare.project_id)
        .order_by(Project.name, UsageShare.user_id)
    )
    return tuple(
        UsageView(
            project=project,
            user=user,
            gpu_ms=gpu_ms,
            as_of_ms=round(as_of_at.timestamp() * 1_000_000) // 1000,
        )
        for project, user, gpu_ms, as_of_at in rows
    )
