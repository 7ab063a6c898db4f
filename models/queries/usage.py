"""Writing down what an attempt has used, in the transaction that ends it.

Attempts of one user may end at the same moment: rows are made where they are missing, then
changed by statements or under a lock, so that nothing is lost on PostgreSQL either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models.quota import UsageMonth, UsageShare
from scheduler.core.octaves import halve
from scheduler.core.policy import DEFAULT_POLICY
from scheduler.core.usage import count_ms, name_month, split_by_month


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What an attempt held, and for how long."""

    num_gpus: int
    cpu_milli: int
    since: datetime
    until: datetime

    @property
    def wall_ms(self) -> int:
        """How long."""
        return count_ms(self.since, self.until)

    @property
    def gpu_ms(self) -> int:
        """GPUs x time."""
        return self.num_gpus * self.wall_ms


def record_use(session: Session, *, project_id: str, user_id: str, use: Use) -> None:
    """Add what an ended attempt has used to its user's share and months."""
    _add_to_share(session, project_id, user_id, use)
    for part in split_by_month(use.since, use.until):
        _add_to_month(
            session,
            {"project_id": project_id, "user_id": user_id, "month": part.month},
            gpu_ms=use.num_gpus * part.duration_ms,
            cpu_ms=use.cpu_milli * part.duration_ms // 1000,
            num_attempts=int(part.month == name_month(use.until)),
        )


def decay_use(gpu_ms: int, as_of: datetime, now: datetime) -> int:
    """Return what is left at `now` of usage as it was at `as_of`."""
    return halve(gpu_ms, count_ms(as_of, now), DEFAULT_POLICY.half_life_ms)


def read_spent(session: Session, *, month: str) -> dict[tuple[str, str | None], int]:
    """Return the GPU-milliseconds of each user, and under None of each project, in `month`."""
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


def _add_to_share(session: Session, project_id: str, user_id: str, use: Use) -> None:
    if use.num_gpus == 0:
        return  # nothing is shared out but GPUs
    key = {"project_id": project_id, "user_id": user_id}
    _insert_missing(session, UsageShare, {**key, "gpu_ms": 0, "as_of_at": use.until})
    share = session.execute(
        select(UsageShare.gpu_ms, UsageShare.as_of_at).filter_by(**key).with_for_update()
    ).one()
    # An attempt may be closed with a clock that is behind the last one's: usage never grows back.
    as_of_at = max(share.as_of_at, use.until)
    gpu_ms = decay_use(share.gpu_ms, share.as_of_at, as_of_at) + use.gpu_ms
    session.execute(
        update(UsageShare)
        .filter_by(**key)
        .values(gpu_ms=gpu_ms, as_of_at=as_of_at)
        .execution_options(synchronize_session=False)
    )


def _add_to_month(
    session: Session, key: Mapping[str, str], *, gpu_ms: int, cpu_ms: int, num_attempts: int
) -> None:
    blank = {"gpu_ms": 0, "cpu_ms": 0, "num_attempts": 0}
    _insert_missing(session, UsageMonth, {**key, **blank})
    session.execute(
        update(UsageMonth)
        .filter_by(**key)
        .values(
            gpu_ms=UsageMonth.gpu_ms + gpu_ms,
            cpu_ms=UsageMonth.cpu_ms + cpu_ms,
            num_attempts=UsageMonth.num_attempts + num_attempts,
        )
        .execution_options(synchronize_session=False)
    )


def _insert_missing(
    session: Session, table: type[UsageShare | UsageMonth], values: Mapping[str, Any]
) -> None:
    is_postgres = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgres else sqlite.insert
    session.execute(insert(table).values(**values).on_conflict_do_nothing())
