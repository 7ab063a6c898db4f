"""Changing a job that is there, as far as its future goes, and removing it for good."""

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
from models import Checkpoint, CheckpointState, Database, Job, JobDependency
from models.queries.jobs import record_event
from models.queries.quotas import read_caps
from scheduler.core.errors import Conflict, IllegalTransition, Invalid, InvalidSpec, Problem
from scheduler.core.spec import content_hash, read_spec
from scheduler.core.spec_rules import World, check_spec
from scheduler.core.states import TERMINAL_STATES, JobState

LABELS_MAX = 64
_MOVABLE = frozenset({JobState.PENDING, JobState.QUEUED, JobState.PAUSED})
_OF_THE_PLACE = frozenset(
    {"unknown_queue", "wrong_queue", "no_such_gpu", "worker_too_large", "gang_too_large"}
)


class JobInUse(Conflict):
    """Another job still starts from this one's checkpoints."""

    code = "job_in_use"


def edit_job(
    session: Session,
    caller: Caller,
    job_id: str,
    patch: schemas.JobPatch,
    *,
    world: World,
    if_match: str | None,
    now: datetime,
) -> schemas.Job:
    """Change what `patch` names, with an event; nothing happens when it changes nothing.

    Raises:
        PreconditionFailed: `if_match` names another version.
        IllegalTransition: the job has ended, or holds places and another queue is given.
        Invalid, InvalidSpec: the job would have too many labels, too high a priority for its
            quota, or could not run in the pool of that queue.
    """
    job = get_visible_job(session, caller, job_id)
    check_version(if_match, "job", job.version)
    given = patch.model_dump(include=patch.model_fields_set)
    if "labels" in given:
        given["labels"] = _merge_labels(job, given["labels"])
    if "limits" in given:
        limits = patch.limits.model_dump(include=patch.limits.model_fields_set)
        given["spec"] = {**job.spec, "limits": {**job.spec["limits"], **limits}}
        del given["limits"]
    changed = {name: value for name, value in given.items() if getattr(job, name) != value}
    if "priority" in changed:
        _check_priority(session, caller, job, changed["priority"])
    if "spec" in changed and job.is_terminal:
        raise IllegalTransition(job.id, job.state, "a change of limits", ["a job that goes on"])
    if "queue" in changed:
        changed |= _move(job, changed["queue"], changed.get("spec", job.spec), world)
    if changed:
        told = {"by": caller.key_id, **changed}
        if "spec" in changed:
            changed["spec_sha256"] = content_hash(changed["spec"])
            told["limits"] = told.pop("spec")["limits"]
        if changed.get("pool", job.pool) != job.pool:
            changed["resume_sha256"] = None  # on other machines nobody has looked
        for name, value in changed.items():
            setattr(job, name, value)
        record_event(session, job, "job.edited", now=now, data=told)
    (shown,) = represent_jobs(session, [job])
    return shown


def _check_priority(session: Session, caller: Caller, job: Job, priority: int) -> None:
    if job.is_terminal:
        raise IllegalTransition(job.id, job.state, "a change of priority", ["a job that waits"])
    priority_max = read_caps(session, job.project_id, job.created_by).priority_max
    if priority > max(priority_max, job.priority) and not caller.is_admin:
        message = f"the quota allows {priority_max} at most: ask for less, or ask an admin"
        raise Invalid(message, problems=[Problem("/priority", "priority_too_high", message)])


def _move(job: Job, queue: str, spec: dict[str, Any], world: World) -> dict[str, Any]:
    """Return what changes when the job goes over to another queue, and so to its pool."""
    if job.state not in _MOVABLE:
        raise IllegalTransition(job.id, job.state, "a change of queue", sorted(_MOVABLE))
    pool = world.queues.get(queue, job.pool)
    moved = {**spec, "queue": queue, "pool": pool}
    problems = [
        problem for problem in check_spec(read_spec(moved), world) if problem.code in _OF_THE_PLACE
    ]
    if problems:
        raise InvalidSpec(problems)
    changes = {"spec": moved, "pool": pool}
    # What was kept or promised lies in the old pool.
    return changes if pool == job.pool else {**changes, "claim": None, "reservation": None}


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
    waiting = session.scalar(
        select(JobDependency.job_id).where(JobDependency.depends_on_job_id == job.id).limit(1)
    )
    if waiting is not None:
        raise JobInUse(f"{waiting} depends on {job.id} and has not ended: cancel it, or wait")


def _merge_labels(job: Job, patch: dict[str, Any] | None) -> dict[str, str]:
    if patch is None:
        return {}
    merged: dict[str, str] = merge_patch(job.labels, patch)
    if len(merged) > LABELS_MAX:
        message = f"the job would have {len(merged)} labels, {LABELS_MAX} are allowed"
        raise Invalid(message, problems=[Problem("/labels", "too_long", message)])
    return merged
