"""Verifications of resume: which are open, what jobs show of them, and how one ends."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from models.attempt import Attempt
from models.base import Base
from models.database import announce
from models.verification import Verification

VERIFICATIONS_TOPIC = "verifications"
"""Rung when there may be something to do for one."""

Subject = tuple[str, str]
"""A project's id, and the hash of what decides how a job resumes."""


# On the way of every submit: a statement on columns, made once, costs a third of one on objects.
_TABLE = Base.metadata.tables[Verification.__tablename__]
_SHOWN = select(
    *(
        _TABLE.c[name]
        for name in (
            "project_id", "subject_sha256", "id", "verdict", "reason", "message", "finished_at",
        )
    )
).where(_TABLE.c.is_current)  # fmt: skip
_FIND_ONE = _SHOWN.where(
    _TABLE.c.project_id == bindparam("of_project"),
    _TABLE.c.subject_sha256 == bindparam("of_subject"),
)
_FIND_SEVERAL = _SHOWN.where(
    _TABLE.c.project_id.in_(bindparam("of_projects", expanding=True)),
    _TABLE.c.subject_sha256.in_(bindparam("of_subjects", expanding=True)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What jobs show of a verification."""

    verification_id: str
    verdict: str
    reason: str
    message: str
    finished_at: datetime


def verification_topic(verification_id: str) -> str:
    """Return the doorbell topic of everything that happens to one verification."""
    return f"verification:{verification_id}"


def list_open_ids(session: Session) -> Sequence[str]:
    """Return the verifications that have no verdict yet, oldest first."""
    return session.scalars(
        select(Verification.id).where(Verification.finished_at.is_(None)).order_by(Verification.id)
    ).all()


def find_shown(session: Session, subjects: Collection[Subject]) -> Mapping[Subject, Shown]:
    """Return what is known of each subject; one query, and none where there is nothing to ask."""
    if not subjects:
        return {}
    if len(subjects) == 1:
        ((project_id, sha256),) = subjects
        rows = session.execute(_FIND_ONE, {"of_project": project_id, "of_subject": sha256})
    else:
        projects, hashes = zip(*subjects, strict=True)
        rows = session.execute(
            _FIND_SEVERAL, {"of_projects": set(projects), "of_subjects": set(hashes)}
        )
    return {
        (row.project_id, row.subject_sha256): Shown(
            verification_id=row.id,
            verdict=row.verdict,
            reason=row.reason,
            message=row.message,
            finished_at=row.finished_at,
        )
        for row in rows
    }


def find_interruption(session: Session, attempt: Attempt) -> Mapping[str, Any] | None:
    """Return where an attempt is to die so that its job can be seen resuming; None for most.

    It is so until the job has a checkpoint of its own to go on from: an attempt that was lost
    before does not count, and the one after the kill is left in peace.
    """
    found = session.scalar(
        select(Verification).where(
            Verification.interrupted_job_id == attempt.job_id, Verification.finished_at.is_(None)
        )
    )
    if found is None or attempt.resume_checkpoint_id != found.spec["resume_from"]:
        return None
    return found.interruption


def touch(session: Session, verification: Verification) -> None:
    """Say that something about a verification has changed.

    Raises:
        StaleDataError: another transaction has changed it first.
    """
    verification.version += 1
    session.flush()
    announce(session, VERIFICATIONS_TOPIC, verification_topic(verification.id))


def finish(
    session: Session,
    verification: Verification,
    *,
    verdict: str,
    reason: str,
    message: str,
    is_compared: bool,
    details: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Give a verification its verdict, and let jobs show it.

    One in which nothing was compared (a job of it failed, or was cancelled) does not take the
    place of one in which something was.
    """
    verification.verdict, verification.reason, verification.message = verdict, reason, message
    verification.is_compared, verification.finished_at = is_compared, now
    verification.details = None if details is None else dict(details)
    shown = session.scalar(
        select(Verification).where(
            Verification.is_current,
            Verification.project_id == verification.project_id,
            Verification.subject_sha256 == verification.subject_sha256,
        )
    )
    if shown is None or is_compared or not shown.is_compared:
        if shown is not None:
            shown.is_current = False
            touch(session, shown)  # before the other: there is never more than one
        verification.is_current = True
    touch(session, verification)
