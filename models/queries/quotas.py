"""What quotas allow one user."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from models.base import Base
from models.quota import Quota

PRIORITY_MAX = 100

# On the way of every submit: a statement on columns, made once, costs a third of an object's.
_QUOTAS = Base.metadata.tables[Quota.__tablename__]
_CAPS = select(_QUOTAS.c.priority_max, _QUOTAS.c.limit_gpus).where(
    _QUOTAS.c.project_id == bindparam("of_project"),
    or_(_QUOTAS.c.user_id.is_(None), _QUOTAS.c.user_id == bindparam("of_user")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The least of what the quotas of a project and one user of it allow.

    Attributes:
        limit_gpus: at once; None: no limit.
    """

    priority_max: int = PRIORITY_MAX
    limit_gpus: int | None = None


def read_caps(session: Session, project_id: str, user_id: str | None) -> Caps:
    """Return what a job of this user may ask for."""
    of = {"of_project": project_id, "of_user": user_id}
    rows = session.execute(_CAPS, of).all()
    limits = [row.limit_gpus for row in rows if row.limit_gpus is not None]
    return Caps(
        priority_max=min((row.priority_max for row in rows), default=PRIORITY_MAX),
        limit_gpus=min(limits, default=None),
    )
