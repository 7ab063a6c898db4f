"""Applying a job's policy to its checkpoints: when one comes, and when one is needed no more.

What an attempt resumes from stays while it does, so the end of an attempt may make it expire.
Only marks: the bytes go afterwards, see `api.checkpoints.removal`.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.checkpoints.retention import Candidate, decide_expired
from models import Attempt, Checkpoint, CheckpointState, Job, announce
from models.queries.checkpoints import list_needed_ids, select_committed
from models.queries.jobs import job_topic
from scheduler.core.spec import read_spec


def mark_expired(session: Session, job: Job) -> list[str]:
    """Mark what the job's policy does not keep; return the ids."""
    committed = session.scalars(select_committed(job.id)).all()
    ids = [checkpoint.id for checkpoint in committed]
    expired = decide_expired(
        [
            Candidate(
                checkpoint_id=checkpoint.id,
                metrics=checkpoint.metrics,
                is_pinned=checkpoint.is_pinned,
            )
            for checkpoint in committed
        ],
        read_spec(job.spec).checkpoint,
        in_use=list_needed_ids(session, ids),
    )
    for checkpoint in committed:
        if checkpoint.id in expired:
            checkpoint.state = CheckpointState.DELETING
    if expired:
        announce(session, job_topic(job.id))
    return expired


def expire_after(session: Session, attempt_id: str) -> list[str]:
    """Mark what is kept no longer because the attempt has ended; return the ids.

    Nothing while it is live. The checkpoint may be one of another job, that this one began with.
    """
    session.flush()
    attempt = session.get(Attempt, attempt_id)
    if attempt is None or attempt.ended_at is None or attempt.resume_checkpoint_id is None:
        return []
    resumed = session.get(Checkpoint, attempt.resume_checkpoint_id)
    job = None if resumed is None else session.get(Job, resumed.job_id)
    return [] if job is None else mark_expired(session, job)


def list_crowded_jobs(session: Session) -> list[str]:
    """Return the jobs that may keep a checkpoint only because an ended attempt resumed from it."""
    is_committed = Checkpoint.state == CheckpointState.COMMITTED
    resumed = select(Attempt.resume_checkpoint_id).where(
        Attempt.ended_at.is_not(None), Attempt.resume_checkpoint_id.is_not(None)
    )
    holders = select(Checkpoint.job_id).where(
        is_committed, Checkpoint.is_pinned.is_(False), Checkpoint.id.in_(resumed)
    )
    num_kept = (
        select(func.count())
        .select_from(Checkpoint)
        .where(is_committed, Checkpoint.job_id == Job.id)
        .scalar_subquery()
    )
    keep_last = Job.spec["checkpoint"]["keep_last"].as_integer()
    return list(session.scalars(select(Job.id).where(Job.id.in_(holders), num_kept > keep_last)))
