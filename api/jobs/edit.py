"""Changing a job that is there: its name, priority and labels, and removing it for good."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.checkpoints.removal import finish_deletions
from api.jobs import schemas
from api.jobs.representation import represent_jobs
from api.jobs.submission import merge_patch
from api.preconditions import check_version
from api.storage import LocalStorage
from api.visibility import get_visible_job
from models import Checkpoint, CheckpointState, Database, Job
from models.queries.jobs import record_event
from scheduler.core.errors import Conflict, IllegalTransition, Invalid, Problem
from scheduler.core.states import TERMINAL_STATES

LABELS_MAX = 64


class JobInUse(Conflict):
    """Another job still starts from this one's checkpoints."""

    code = "job_in_use"


def edit_job(
    session: Session,
    caller: Caller,
    job_id: str,
    patch: schemas.JobPatch,
    *,
    if_match: str | None,
    now: datetime,
) -> schemas.Job:
    """Change what `patch` names, with an event; nothing happens when it changes nothing.

    Raises:
        PreconditionFailed: `if_match` names another version.
        IllegalTransition: a priority is given, and the job has ended.
        Invalid: the job would have too many labels.
    """
    job = get_visible_job(session, caller, job_id)
    check_version(if_match, "job", job.version)
    given = patch.model_dump(include=patch.model_fields_set)
    if "labels" in given:
        given["labels"] = _merge_labels(job, given["labels"])
    changed = {name: value for name, value in given.items() if getattr(job, name) != value}
    if "priority" in changed and job.is_terminal:
        raise IllegalTransition(job.id, job.state, "a change of priority", ["a job that waits"])
    if changed:
        for name, value in changed.items():
            setattr(job, name, value)
        record_event(session, job, "job.edited", now=now, data={"by": caller.key_id, **changed})
    (shown,) = represent_jobs(session, [job])
    return shown


def remove_job(
    database: Database,
    storage: LocalStorage,
    caller: Caller,
    job_id: str,
    *,
    if_match: str | None,
) -> None:
    """Remove a job that has ended: its checkpoints' bytes first, then all of its rows.

    Cut off anywhere it leaves a job without some checkpoints, which can be removed again.

    Raises:
        IllegalTransition: the job has not ended.
        JobInUse: a job that was made from it has not ended.
    """
    with database.write() as session:
        job = get_visible_job(session, caller, job_id)
        check_version(if_match, "job", job.version)
        _check_removable(session, job)
        checkpoint_ids = session.scalars(
            select(Checkpoint.id).where(Checkpoint.job_id == job_id)
        ).all()
        session.execute(
            update(Checkpoint)
            .where(Checkpoint.job_id == job_id)
            .values(state=CheckpointState.DELETING)
        )
    finish_deletions(database, storage, checkpoint_ids)
    with database.write() as session:
        session.execute(delete(Job).where(Job.id == job_id, Job.state.in_(TERMINAL_STATES)))


def _check_removable(session: Session, job: Job) -> None:
    if not job.is_terminal:
        raise IllegalTransition(job.id, job.state, "delete", sorted(TERMINAL_STATES))
    heir = session.scalar(
        select(Job.id)
        .where(Job.parent_job_id == job.id, Job.state.not_in(TERMINAL_STATES))
        .limit(1)
    )
    if heir is not None:
        raise JobInUse(f"{heir} was made from {job.id} and has not ended: cancel it, or wait")


def _merge_labels(job: Job, patch: dict[str, Any] | None) -> dict[str, str]:
    if patch is None:
        return {}
    merged: dict[str, str] = merge_patch(job.labels, patch)
    if len(merged) > LABELS_MAX:
        message = f"the job would have {len(merged)} labels, {LABELS_MAX} are allowed"
        raise Invalid(message, problems=[Problem("/labels", "too_long", message)])
    return merged
