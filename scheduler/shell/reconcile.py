"""Puts right what nobody will report: silence, passed limits, lost dependencies, drained nodes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Row, String, cast, select
from sqlalchemy.orm import Session, aliased

from models.attempt import Attempt, AttemptNode
from models.job import Job, JobDependency
from models.node import Node
from models.queries.attempts import ask_stop, end_attempt
from models.queries.jobs import advance_job
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd
from scheduler.core.states import JobEvent, JobState
from scheduler.shell.budgets import stop_spent_jobs

log = structlog.get_logger()

_STOPPABLE = (JobState.STARTING, JobState.RUNNING)
_WAITING = (JobState.PENDING, JobState.QUEUED)
_WORDS = {JobState.FAILED: "has failed", JobState.CANCELLED: "was cancelled"}


def reconcile(session: Session, *, now: datetime, judged_from: datetime) -> None:
    """Close what is lost and stop what must stop.

    Args:
        judged_from: no lease is judged before this instant. After an outage of the service every
            supervisor gets one whole lease to report before its silence counts.
    """
    if now >= judged_from:
        _close_silent_attempts(session, now=now)
    _stop_overdue_jobs(session, now=now)
    stop_spent_jobs(session, now=now)
    _fail_dependents(session, now=now)
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
    wall_seconds = Job.spec[("limits", "wall_seconds")].as_integer()
    statement = (
        select(Job.id, Attempt.started_at, Job.deadline_served_ms, wall_seconds)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(
            Attempt.ended_at.is_(None),
            Job.state.in_(_STOPPABLE),
            Attempt.started_at.is_not(None),
            wall_seconds.is_not(None),
        )
    )
    for job_id, started_at, served_ms, limit_s in session.execute(statement).all():
        if started_at is None:
            continue
        # Attempts that the service has cut short are part of the same run: see decision 0014.
        ran = timedelta(milliseconds=served_ms) + (now - started_at)
        if ran > timedelta(seconds=limit_s):
            job = session.get_one(Job, job_id)
            ask_stop(session, job, reason=Reason.DEADLINE_REACHED, now=now)


def _fail_dependents(session: Session, *, now: datetime) -> None:
    """Fail the jobs that wait for one which will never succeed; then those behind them."""
    needed = aliased(Job)
    # Cast, so that no index of states is taken: there are few dependencies and many jobs.
    state = cast(needed.state, String)
    statement = (
        select(JobDependency.job_id, needed.id, needed.state)
        .join(needed, needed.id == JobDependency.depends_on_job_id)
        .where(state.in_([never.value for never in _WORDS]))
        .order_by(JobDependency.job_id, needed.id)
    )
    while _fail_each(session, session.execute(statement).all(), now=now):
        session.flush()


def _fail_each(session: Session, rows: Sequence[Row[str, str, JobState]], *, now: datetime) -> int:
    """Fail the jobs in `rows` that wait; return how many did."""
    num_failed = 0
    for job_id, needed_id, state in rows:
        job = session.get_one(Job, job_id)
        if job.state not in _WAITING:
            continue
        message = (
            f"{needed_id}, which it depends on, {_WORDS[state]}: "
            "rerun that one, and submit this one again behind it"
        )
        advance_job(
            session,
            job,
            JobEvent.FAILED,
            reason=Reason.DEPENDENCY_FAILED,
            message=message,
            now=now,
            data={"depends_on": needed_id},
        )
        num_failed += 1
    return num_failed


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
