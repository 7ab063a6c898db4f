"""What quotas allow one user."""

from __future__ import annotations

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from models.base import Base
from models.quota import Quota

PRIORITY_MAX = 100

# On the way of every submit: a statement on columns, made once, costs a third of an object's.
_QUOTAS = Base.metadata.tables[Quota.__tablename__]
_PRIORITIES = select(_QUOTAS.c.priority_max).where(
    _QUOTAS.c.project_id == bindparam("of_project"),
    or_(_QUOTAS.c.user_id.is_(None), _QUOTAS.c.user_id == bindparam("of_user")),
)


def read_priority_max(session: Session, project_id: str, user_id: str | None) -> int:
    """Return the highest priority that a user of a project may ask for: the least of its quotas."""
    of = {"of_project": project_id, "of_user": user_id}
    return min(session.scalars(_PRIORITIES, of), default=PRIORITY_MAX)
