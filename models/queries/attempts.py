"""Ending an attempt: slots come back, and the job goes where the core says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models.attempt import Allocation, Attempt, AttemptNode
from models.database import announce
from models.job import Job
from models.node import Node
from models.queries.faults import note_faults
from models.queries.jobs import JOBS_TOPIC, advance_job, node_topic
from models.queries.resizing import take_size
from models.queries.usage import Use, record_use
from scheduler.core.errors import NotFound
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd, Verdict, decide_after_attempt
from scheduler.core.spec import read_spec
from scheduler.core.states import AttemptEvent, JobEvent, JobState, find_next_attempt_state
from scheduler.core.usage import count_ms

_CODE_ENDS = {JobEvent.SUCCEEDED, JobEvent.FAILED}
_MAY_GO_ON = {JobEvent.REQUEUED, JobEvent.PAUSED}


def advance_attempt(attempt: Attempt, event: AttemptEvent) -> None:
    """Take `attempt` to where `event` leads.

    Raises:
        ValueError: the table has no such edge, which is a mistake of ours; nothing was changed.
    """
    state = find_next_attempt_state(attempt.state, event)
    if state is None:
        raise ValueError(f"{attempt.id} is {attempt.state} and cannot be {event}")
    attempt.state = state


def ask_stop(
    session: Session,
    job: Job,
    *,
    reason: str,
    message: str = "",
    now: datetime,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Ask the live attempt to stop: the job is stopping, its nodes are told."""
    job.stop_reason = reason
    advance_job(
        session, job, JobEvent.STOP_ASKED, reason=reason, message=message, now=now, data=data
    )
    for node_id in _node_ids(session, job):
        announce(session, node_topic(node_id))


def ask_checkpoint(session: Session, job: Job) -> None:
    """Ask the live attempt to save; its nodes are told."""
    job.checkpoint_serial += 1
    for node_id in _node_ids(session, job):
        announce(session, node_topic(node_id))


def end_attempt(session: Session, attempt: Attempt, end: AttemptEnd, *, now: datetime) -> Verdict:
    """Close a live attempt, give its slots back and decide what becomes of the job."""
    job = session.get(Job, attempt.job_id)
    if job is None:
        raise NotFound("this job")
    spec = read_spec(job.spec)
    verdict = decide_after_attempt(
        end,
        retry=spec.retry,
        limits=spec.limits,
        health=spec.health,
        user_failures=job.user_failures,
        infra_failures=job.infra_failures,
        keeps_size=job.resize_to is None,
    )
    advance_attempt(attempt, AttemptEvent.LOST if end.outcome == "lost" else AttemptEvent.EXITED)
    attempt.reason, attempt.message, attempt.ended_at = end.reason, end.message, now
    _count_use(session, job, attempt, verdict, now=now)
    quarantined = note_faults(session, attempt, end, now=now) if end.is_infrastructure else ()
    release_slots(session, attempt)
    job.user_failures, job.infra_failures = verdict.user_failures, verdict.infra_failures
    job.not_before_at = job.not_before_reason = None
    if verdict.event is JobEvent.REQUEUED and verdict.delay_seconds > 0:
        job.not_before_at = now + timedelta(seconds=verdict.delay_seconds)
        job.not_before_reason = Reason.RETRY_BACKOFF
    data = _end_data(attempt, end)
    if job.resize_to is not None and verdict.event in _MAY_GO_ON:
        data |= {"workers_before": job.num_workers, "workers": job.resize_to}
        take_size(job, job.resize_to, resume_sha256=job.resize_resume_sha256)
    job.resize_to = job.resize_resume_sha256 = None
    if quarantined:
        data["quarantined_nodes"] = list(quarantined)
    # Only a code that has ended passes through finalizing; a lost one never said that it had.
    if (
        verdict.event in _CODE_ENDS
        and job.state is not JobState.FINALIZING
        and end.outcome != "lost"
    ):
        advance_job(session, job, JobEvent.CODE_ENDED, reason=Reason.UPLOADING_ARTIFACTS, now=now)
    advance_job(
        session,
        job,
        verdict.event,
        reason=verdict.reason,
        message=verdict.message,
        now=now,
        data=data,
    )
    return verdict


def _count_use(
    session: Session, job: Job, attempt: Attempt, verdict: Verdict, *, now: datetime
) -> None:
    """Add the attempt to what its job, user and project have had."""
    held = session.execute(
        select(func.count(Allocation.gpu_index), func.sum(Allocation.cpu_milli)).where(
            Allocation.attempt_id == attempt.id
        )
    ).one()
    use = Use(num_gpus=held[0], cpu_milli=held[1] or 0, since=attempt.created_at, until=now)
    record_use(session, project_id=job.project_id, user_id=job.created_by or "", use=use)
    job.served_ms += use.wall_ms
    job.gpu_ms += use.gpu_ms
    job.waiting_since_at = now
    job.evictions += verdict.is_eviction
    ran_ms = 0 if attempt.started_at is None else count_ms(attempt.started_at, now)
    job.deadline_served_ms = job.deadline_served_ms + ran_ms if verdict.keeps_deadline else 0


def release_slots(session: Session, attempt: Attempt) -> None:
    """Give back all that the attempt holds."""
    held = session.scalars(select(Allocation).where(Allocation.attempt_id == attempt.id)).all()
    for node_id in sorted({allocation.node_id for allocation in held}):
        here = [allocation for allocation in held if allocation.node_id == node_id]
        session.execute(
            update(Node)
            .where(Node.id == node_id)
            .values(
                cpu_milli_used=Node.cpu_milli_used - sum(one.cpu_milli for one in here),
                memory_mib_used=Node.memory_mib_used - sum(one.memory_mib for one in here),
            )
            .execution_options(synchronize_session=False)
        )
        announce(session, node_topic(node_id))
    session.execute(delete(Allocation).where(Allocation.attempt_id == attempt.id))
    announce(session, JOBS_TOPIC)


def _node_ids(session: Session, job: Job) -> list[str]:
    statement = (
        select(AttemptNode.node_id)
        .join(Attempt, Attempt.id == AttemptNode.attempt_id)
        .where(Attempt.job_id == job.id, Attempt.ended_at.is_(None))
    )
    return list(session.scalars(statement))


def _end_data(attempt: Attempt, end: AttemptEnd) -> dict[str, Any]:
    step = (attempt.progress or {}).get("step")
    return {
        "attempt_id": attempt.id,
        "attempt": attempt.number,
        "outcome": end.outcome,
        "cause": end.reason,
        "last_step": step,
    }
