"""How long jobs like one took: same project, name, recipe and user. Reads rows, decides nothing.

Looked at as of one instant, so that the answer does not change while jobs are being compared: what
ends later counts from the next instant on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from statistics import median_low

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.job import Job
from scheduler.core.states import JobState

Key = tuple[str, str, str | None, str | None]
"""Project id, name, recipe, user."""

# Older ones tell of other code on other machines, and reading them all would grow without end.
_AGE_MAX = timedelta(days=30)
# Of so many the median is steady, and what has changed shows after half of them.
_COUNT_MAX = 15
_NAMES_MAX = 400


class History:
    """Remembers each answer as long as it lives."""

    def __init__(self, *, as_of: datetime) -> None:
        self._as_of = as_of
        self._known: dict[Key, int | None] = {}

    def look_up(self, session: Session, keys: Iterable[Key]) -> dict[Key, int | None]:
        """Return for each key the median total time of its last successes, None without any."""
        wanted = set(keys)
        names_by_project: dict[str, set[str]] = {}
        for key in wanted - self._known.keys():
            names_by_project.setdefault(key[0], set()).add(key[1])
            self._known[key] = None
        for project_id, names in names_by_project.items():
            ordered = sorted(names)
            for start in range(0, len(ordered), _NAMES_MAX):
                self._read(session, project_id, ordered[start : start + _NAMES_MAX])
        return {key: self._known[key] for key in wanted}

    def _read(self, session: Session, project_id: str, names: list[str]) -> None:
        place = (
            func.row_number()
            .over(
                partition_by=(Job.name, Job.recipe, Job.created_by),
                order_by=(Job.finished_at.desc(), Job.id.desc()),
            )
            .label("place")
        )
        latest = (
            select(Job.name, Job.recipe, Job.created_by, Job.served_ms, place)
            .where(
                Job.project_id == project_id,
                Job.name.in_(names),
                Job.state == JobState.SUCCEEDED,
                Job.finished_at <= self._as_of,
                Job.finished_at > self._as_of - _AGE_MAX,
            )
            .subquery()
        )
        rows = session.execute(select(latest).where(latest.c.place <= _COUNT_MAX))
        took_ms: dict[Key, list[int]] = {}
        for name, recipe, user, served_ms, _ in rows:
            took_ms.setdefault((project_id, name, recipe, user), []).append(served_ms)
        for key, values in took_ms.items():
            self._known[key] = median_low(values)
