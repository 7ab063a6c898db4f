"""Puts right what nobody will report: silent supervisors, passed deadlines, draining nodes."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.attempt import Attempt, AttemptNode
from models.job import Job
from models.node import Node
from models.queries.attempts import ask_stop, end_attempt
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd
from scheduler.core.spec import read_spec
from scheduler.core.states import JobState

log = structlog.get_logger()

_STOPPABLE = (JobState.STARTING, JobState.RUNNING)


def reconcile(session: Session, *, now: datetime, judged_from: datetime) -> None:
    """Close what is lost and stop what must stop.

    Args:
        judged_from: no lease is judged before this instant. After an outage of the service every
            supervisor gets one whole lease to report before its silence counts.
    """
    if now >= judged_from:
        _close_silent_attempts(session, now=now)
    _stop_overdue_jobs(session, now=now)
    _stop_on_draining_nodes(session, now=now)


def _close_silent_attempts(session: Session, *, now: datetime) -> None:
    statement = (
        select(Attempt, AttemptNode, Node.name)
        .join(AttemptNode, AttemptNode.attempt_id == Attempt.id)
        .join(Node, Node.id == AttemptNode.node_id)
        .where(
            Attempt.ended_at.is_(None),
            AttemptNode.exited_at.is_(None),
            AttemptNode.lease_expires_at < now,
        )
        .order_by(Attempt.id)
        # On PostgreSQL: who holds one of these rows is a supervisor that reports just now, so it is
        # not silent; and what is locked here does not end meanwhile.
        .with_for_update(of=(Attempt, AttemptNode), key_share=True, skip_locked=True)
    )
    for attempt, part, node_name in session.execute(statement).all():
        if attempt.ended_at is not None:
            continue  # closed for another of its nodes
        job = session.get_one(Job, attempt.job_id)
        until = f"{part.lease_expires_at:%H:%M:%S} UTC"
        message = f"node {node_name} was silent past its lease, which ended at {until}"
        end = AttemptEnd(
            outcome="lost", reason=Reason.LEASE_LOST, message=message, stop_reason=job.stop_reason
        )
        end_attempt(session, attempt, end, now=now)
        log.warning("attempt lost", job_id=job.id, attempt_id=attempt.id, node=node_name)


def _stop_overdue_jobs(session: Session, *, now: datetime) -> None:
    statement = (
        select(Job, Attempt.started_at)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(
            Attempt.ended_at.is_(None), Job.state.in_(_STOPPABLE), Attempt.started_at.is_not(None)
        )
    )
    for job, started_at in session.execute(statement).all():
        wall_seconds = read_spec(job.spec).limits.wall_seconds
        if started_at is None or wall_seconds is None:
            continue
        if now - started_at > timedelta(seconds=wall_seconds):
            ask_stop(session, job, reason=Reason.DEADLINE_REACHED, now=now)


def _stop_on_draining_nodes(session: Session, *, now: datetime) -> None:
    draining = (
        select(Attempt.job_id)
        .join(AttemptNode, AttemptNode.attempt_id == Attempt.id)
        .join(Node, Node.id == AttemptNode.node_id)
        .where(Attempt.ended_at.is_(None), Node.is_draining)
    )
    statement = select(Job).where(Job.id.in_(draining), Job.state.in_(_STOPPABLE))
    for job in session.scalars(statement).all():
        ask_stop(session, job, reason=Reason.NODE_DRAINING, now=now)
