"""From rows to what each user has used and may expect: an account each, a few queries in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.usage import schemas
from models import ApiKey, Job, Project, Quota, UsageMonth, UsageShare
from models.queries.budgets import GpuHolder, list_gpu_holders
from models.queries.usage import decay_use
from scheduler.core.policy import DEFAULT_POLICY
from scheduler.core.states import LIVE_STATES, JobState
from scheduler.core.tenants import spend
from scheduler.core.usage import HOUR_MS, begin_month, count_ms, name_month

Member = tuple[str, str]
"""A project's id, and a user's, "" for nobody's."""

_TAKES_PART = LIVE_STATES | {JobState.PENDING, JobState.QUEUED}


@dataclass(slots=True)
class _Account:
    gpu_ms: int = 0
    cpu_ms: int = 0
    num_attempts: int = 0
    num_gpus: int = 0
    recent_gpu_ms: int = 0


def list_usage(session: Session, *, month: str, now: datetime) -> list[schemas.Usage]:
    """Return the accounts of all who have used or want anything, by project and user."""
    active = {
        (project_id, user_id or "")
        for project_id, user_id in session.execute(
            select(Job.project_id, Job.created_by).where(Job.state.in_(_TAKES_PART)).distinct()
        )
    }
    accounts = _read_accounts(session, month=month, now=now)
    for member in active:
        accounts.setdefault(member, _Account())
    projects = _names(session, Project)
    keys = _names(session, ApiKey)
    fair = _share_out(session, active)
    recent_ms = sum(account.recent_gpu_ms for account in accounts.values())
    ordered = sorted(accounts.items(), key=lambda item: (projects[item[0][0]], item[0][1]))
    return [
        schemas.Usage(
            project=projects[project_id],
            user=user_id or None,
            user_name=keys.get(user_id),
            month=month,
            gpu_hours=_hours(account.gpu_ms),
            cpu_hours=_hours(account.cpu_ms),
            num_attempts=account.num_attempts,
            gpus_in_use=account.num_gpus,
            recent_gpu_hours=_hours(account.recent_gpu_ms),
            recent_share=round(account.recent_gpu_ms / recent_ms, 4) if recent_ms else 0.0,
            fair_share=fair.get((project_id, user_id)),
        )
        for (project_id, user_id), account in ordered
    ]


def _read_accounts(session: Session, *, month: str, now: datetime) -> dict[Member, _Account]:
    accounts: dict[Member, _Account] = {}
    for row in session.scalars(select(UsageMonth).where(UsageMonth.month == month)):
        account = accounts.setdefault((row.project_id, row.user_id), _Account())
        account.gpu_ms, account.cpu_ms = row.gpu_ms, row.cpu_ms
        account.num_attempts = row.num_attempts
    for share in session.scalars(select(UsageShare)):
        account = accounts.setdefault((share.project_id, share.user_id), _Account())
        account.recent_gpu_ms = decay_use(share.gpu_ms, share.as_of_at, now)
    for holder in list_gpu_holders(session):
        account = accounts.setdefault((holder.project_id, holder.user_id or ""), _Account())
        _add_running(account, holder, is_present=month == name_month(now), now=now)
    return accounts


def _add_running(account: _Account, holder: GpuHolder, *, is_present: bool, now: datetime) -> None:
    account.num_gpus += holder.num_gpus
    held_ms = count_ms(holder.since, now)
    account.recent_gpu_ms += holder.num_gpus * spend(held_ms, DEFAULT_POLICY.half_life_ms)
    if is_present:
        since = max(holder.since, begin_month(now))
        account.gpu_ms += holder.num_gpus * count_ms(since, now)


def _share_out(session: Session, active: set[Member]) -> Mapping[Member, float]:
    """Return the part of the cluster that each active user's weights give it."""
    rows = session.execute(select(Quota.project_id, Quota.user_id, Quota.weight))
    weights = {(row.project_id, row.user_id): row.weight for row in rows}
    projects = {project_id for project_id, _ in active}
    of_all = sum(weights.get((project_id, None), 1) for project_id in projects)
    fair: dict[Member, float] = {}
    for project_id, user_id in active:
        siblings = [user for project, user in active if project == project_id]
        of_siblings = sum(weights.get((project_id, user), 1) for user in siblings)
        of_project = weights.get((project_id, None), 1) / of_all
        part = of_project * weights.get((project_id, user_id), 1) / of_siblings
        fair[project_id, user_id] = round(part, 4)
    return fair


def _names(session: Session, kind: type[Project | ApiKey]) -> dict[str, str]:
    rows = session.execute(select(kind.id, kind.name)).all()
    return {row.id: row.name for row in rows}


def _hours(ms: int) -> float:
    return round(ms / HOUR_MS, 4)
