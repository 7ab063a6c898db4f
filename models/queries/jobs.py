"""Changing a job: one function writes the new state, the version and the event, together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from models.base import Base, new_id
from models.database import announce
from models.job import Event, Job, JobDependency
from scheduler.core.errors import IllegalTransition
from scheduler.core.states import (
    JOB_TRANSITIONS,
    TERMINAL_STATES,
    JobEvent,
    JobState,
    find_next_job_state,
)

JOBS_TOPIC = "jobs"
"""Rung when there may be something to place: who waits has changed, or room has."""

_JOB_COLUMNS = tuple(Base.metadata.tables[Job.__tablename__].columns.keys())
_INSERT_JOB = insert(Base.metadata.tables[Job.__tablename__])
_INSERT_EVENT = insert(Base.metadata.tables[Event.__tablename__])
_INSERT_DEPENDENCY = insert(Base.metadata.tables[JobDependency.__tablename__])


def job_topic(job_id: str) -> str:
    """Return the doorbell topic of everything that happens to one job."""
    return f"job:{job_id}"


def node_topic(node_id: str) -> str:
    """Return the doorbell topic of what is wanted from one node."""
    return f"node:{node_id}"


def add_job(session: Session, job: Job, *, now: datetime, data: Mapping[str, Any]) -> None:
    """Insert a new job with its first event; `job` itself stays outside of the session.

    Submitting is what many clients do at once: as columns the two rows cost a third of what they
    cost as objects.
    """
    job.id, job.version = job.id or new_id("job"), 1
    values = {name: job.__dict__[name] for name in _JOB_COLUMNS if name in job.__dict__}
    session.execute(_INSERT_JOB, values)
    session.execute(_INSERT_EVENT, _event_values(job, "job.pending", now=now, data=data))
    announce(session, job_topic(job.id))
    if not job.is_held:
        announce(session, JOBS_TOPIC)


def add_dependencies(session: Session, job_id: str, needed_ids: Iterable[str]) -> None:
    """Let a new job wait for others of its project."""
    session.execute(
        _INSERT_DEPENDENCY,
        [{"job_id": job_id, "depends_on_job_id": needed_id} for needed_id in needed_ids],
    )


def advance_job(
    session: Session,
    job: Job,
    event: JobEvent,
    *,
    reason: str,
    message: str = "",
    now: datetime,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Take `job` to where `event` leads: state, reason, version and event row in one.

    Raises:
        IllegalTransition: the table has no such edge; nothing was changed.
    """
    state = find_next_job_state(job.state, event)
    if state is None:
        needs = sorted(source for source, edge in JOB_TRANSITIONS if edge is event)
        raise IllegalTransition(job.id, job.state, event, needs)
    if state is not job.state:
        job.state_changed_at = now
    job.state, job.reason, job.message = state, reason, message
    if state in TERMINAL_STATES:
        job.finished_at = now
        if job.spec.get("depends_on"):
            # It waits for nothing any more; what it did wait for stays in its spec.
            session.execute(delete(JobDependency).where(JobDependency.job_id == job.id))
    if not state.has_attempt:
        job.stop_reason = None
    if state in TERMINAL_STATES or state is JobState.PAUSED:
        job.claim = job.reservation = None
    if state is JobState.RUNNING and job.started_at is None:
        job.started_at = now
    record_event(session, job, f"job.{state}", now=now, data=data)


def record_event(
    session: Session,
    job: Job,
    kind: str,
    *,
    now: datetime,
    data: Mapping[str, Any] | None = None,
    message: str | None = None,
) -> None:
    """Raise the job's version and write the event row of that version.

    Args:
        message: what happened, where that is not what the job itself says.

    Raises:
        StaleDataError: another transaction has raised it first.
    """
    job.version += 1
    # The row before its event: who comes second finds a newer version, not a number that is taken.
    session.flush()
    values = _event_values(job, kind, now=now, data=data)
    session.add(Event(**(values if message is None else {**values, "message": message})))
    announce(session, job_topic(job.id))
    if not job.state.has_attempt:
        # It waits, or it waits no longer: the order has changed. A job that runs changes nothing
        # for the others until its slots come back.
        announce(session, JOBS_TOPIC)


def _event_values(
    job: Job, kind: str, *, now: datetime, data: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "seq": job.version,
        "type": kind,
        "state": job.state.value,
        "reason": job.reason,
        "message": job.message,
        "data": dict(data or {}),
        "created_at": now,
    }
