"""Which checkpoint an attempt starts from, and which may go. Nothing here touches bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from models.attempt import Attempt
from models.checkpoint import Checkpoint, CheckpointState
from models.job import Job
from scheduler.core.states import TERMINAL_STATES


def select_committed(job_id: str) -> Select[Checkpoint]:
    """Return the statement for a job's whole checkpoints, newest first.

    Newest by attempt and step, not by clock: the later attempt wins over a higher step of an
    earlier one, whose work was redone.
    """
    return (
        select(Checkpoint)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.job_id == job_id, Checkpoint.state == CheckpointState.COMMITTED)
        .order_by(Attempt.number.desc(), Checkpoint.step.desc(), Checkpoint.id.desc())
    )


def find_resume_checkpoint(session: Session, job: Job) -> Checkpoint | None:
    """Return the checkpoint from which the next attempt of `job` goes on, if there is one.

    The newest of its own that is whole; before it has any, the one that `resume_from` names.
    """
    own = session.scalar(select_committed(job.id).limit(1))
    if own is not None:
        return own
    named = job.spec.get("resume_from")
    if not named:
        return None
    return session.scalar(
        select(Checkpoint).where(
            Checkpoint.id == named,
            Checkpoint.project_id == job.project_id,
            Checkpoint.state == CheckpointState.COMMITTED,
        )
    )


def list_needed_ids(session: Session, checkpoint_ids: Sequence[str]) -> set[str]:
    """Return which of the checkpoints an attempt resumes from, or a waiting job will."""
    resumed = session.scalars(
        select(Attempt.resume_checkpoint_id).where(
            Attempt.ended_at.is_(None), Attempt.resume_checkpoint_id.in_(checkpoint_ids)
        )
    )
    named = session.scalars(
        select(Job.spec["resume_from"].as_string()).where(
            Job.state.not_in(TERMINAL_STATES),
            Job.spec["resume_from"].as_string().in_(checkpoint_ids),
        )
    )
    return {found for found in (*resumed, *named) if found is not None}
