"""How users name an attempt of a job: by number, or by id."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Attempt
from scheduler.core.errors import NotFound


def get_attempt_id(session: Session, job_id: str, name: str) -> str:
    """Return the id of the job's attempt that `name` (`2`, or `att_…`) names.

    Raises:
        NotFound: the job has no such attempt.
    """
    statement = select(Attempt.id).where(Attempt.job_id == job_id)
    is_number = name.isascii() and name.isdigit() and len(name) < 10
    named = Attempt.number == int(name) if is_number else Attempt.id == name
    found = session.scalar(statement.where(named))
    if found is None:
        raise NotFound("this attempt")
    return found


def map_attempt_numbers(session: Session, job_id: str) -> dict[str, int]:
    """Return attempt id to number, for all attempts of a job."""
    rows = session.execute(select(Attempt.id, Attempt.number).where(Attempt.job_id == job_id))
    return {row.id: row.number for row in rows}
