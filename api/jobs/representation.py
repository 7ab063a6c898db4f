"""From rows to the job as the API shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from api.jobs import schemas
from api.jobs.resuming import represent_resume
from models import Attempt, AttemptNode, Job, JobDependency, Node, Project
from models.queries.verifications import Shown, Subject, find_shown
from scheduler.core.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Newest:
    attempt: Attempt
    nodes: list[str]


def represent_jobs(session: Session, jobs: Sequence[Job]) -> list[schemas.Job]:
    """Return `jobs` as the API shows them; five queries at most, however many they are."""
    if not jobs:
        return []
    project_ids = {job.project_id for job in jobs}
    rows = session.execute(select(Project.id, Project.name).where(Project.id.in_(project_ids)))
    projects = {row.id: row.name for row in rows}
    newest = _find_newest(session, [job.id for job in jobs if job.num_attempts])
    waits_for = _find_waits(session, [job.id for job in jobs if _may_wait(job)])
    verified = find_shown(session, {_subject(job) for job in jobs if job.resume_sha256})
    return [
        _represent(
            job,
            projects[job.project_id],
            newest.get(job.id),
            waits_for.get(job.id, []),
            verified.get(_subject(job)),
        )
        for job in jobs
    ]


def represent_new_job(
    session: Session, job: Job, project: str, waits_for: Sequence[str] = ()
) -> schemas.Job:
    """Return a job that has had no attempt yet; one query.

    Args:
        waits_for: the jobs it depends on that have not succeeded yet.
    """
    subject = _subject(job)
    verified = find_shown(session, {subject} if job.resume_sha256 else ())
    return _represent(job, project, None, waits_for, verified.get(subject))


def render_job(job: schemas.Job) -> tuple[bytes, str]:
    """Return the JSON of a job and its ETag.

    The ETag begins with the version, which is all that `If-Match` compares: progress is part of
    the body and changes it, but nobody edits progress.
    """
    body = job.model_dump_json().encode()
    return body, f'"{job.version}.{hashlib.sha256(body).hexdigest()[:12]}"'


def _find_newest(session: Session, job_ids: Sequence[str]) -> Mapping[str, _Newest]:
    if not job_ids:
        return {}
    attempts = session.scalars(
        select(Attempt)
        .join(Job, and_(Job.id == Attempt.job_id, Job.num_attempts == Attempt.number))
        .where(Attempt.job_id.in_(job_ids))
    ).all()
    nodes: dict[str, list[str]] = {attempt.id: [] for attempt in attempts}
    rows = session.execute(
        select(AttemptNode.attempt_id, Node.name)
        .join(Node, Node.id == AttemptNode.node_id)
        .where(AttemptNode.attempt_id.in_(nodes))
        .order_by(AttemptNode.node_rank)
    )
    for attempt_id, name in rows:
        nodes[attempt_id].append(name)
    return {
        attempt.job_id: _Newest(attempt=attempt, nodes=nodes[attempt.id]) for attempt in attempts
    }


def _may_wait(job: Job) -> bool:
    return bool(job.spec.get("depends_on")) and not job.is_terminal


def _find_waits(session: Session, job_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the jobs that each of these depends on and that have not succeeded yet."""
    if not job_ids:
        return {}
    rows = session.execute(
        select(JobDependency.job_id, JobDependency.depends_on_job_id)
        .join(Job, Job.id == JobDependency.depends_on_job_id)
        .where(JobDependency.job_id.in_(job_ids), Job.state != JobState.SUCCEEDED)
        .order_by(JobDependency.depends_on_job_id)
    )
    found: dict[str, list[str]] = {}
    for job_id, needed_id in rows:
        found.setdefault(job_id, []).append(needed_id)
    return found


def _subject(job: Job) -> Subject:
    return job.project_id, job.resume_sha256 or ""


def _represent(
    job: Job,
    project: str,
    newest: _Newest | None,
    waits_for: Sequence[str],
    verified: Shown | None,
) -> schemas.Job:
    return schemas.Job(
        id=job.id,
        name=job.name,
        project=project,
        state=job.state,
        reason=job.reason,
        message=job.message,
        state_changed_at=job.state_changed_at,
        terminal=job.is_terminal,
        conditions=_conditions(job),
        spec=job.spec,
        priority=job.priority,
        queue=job.queue,
        pool=job.pool,
        held=job.is_held,
        waits_for=list(waits_for),
        reservation=_reservation(job),
        resizing_to=job.resize_to,
        evictions=job.evictions,
        resume=represent_resume(verified),
        progress=_progress(newest.attempt) if newest is not None else None,
        attempt=_summary(newest) if newest is not None else None,
        parent_job_id=job.parent_job_id,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        labels=job.labels,
        version=job.version,
    )


def _reservation(job: Job) -> schemas.Reservation | None:
    if job.reservation is None:
        return None
    start_at = datetime.fromtimestamp(job.reservation["start_ms"] / 1000, UTC)
    return schemas.Reservation(start_at=start_at)


def _summary(newest: _Newest) -> schemas.AttemptSummary:
    attempt = newest.attempt
    return schemas.AttemptSummary(id=attempt.id, number=attempt.number, nodes=newest.nodes)


def _progress(attempt: Attempt) -> schemas.Progress | None:
    said = attempt.progress
    if said is None:
        return None
    total, speed = said.get("total_steps"), said.get("steps_per_second")
    remaining = None
    if attempt.ended_at is None and total is not None and speed:
        remaining = round(max(0, total - said["step"]) / speed, 1)
    return schemas.Progress(
        step=said["step"], total_steps=total, steps_per_second=speed, remaining_seconds=remaining
    )


def _conditions(job: Job) -> list[schemas.Condition]:
    started = schemas.Condition(
        type="Started",
        status="True" if job.started_at is not None else "False",
        reason="AllRanksRan" if job.started_at is not None else job.reason,
        message="" if job.started_at is not None else job.message,
        last_transition_time=job.started_at or job.created_at,
    )
    finished = schemas.Condition(
        type="Finished",
        status="True" if job.is_terminal else "False",
        reason=job.reason,
        message=job.message,
        last_transition_time=job.finished_at or job.created_at,
    )
    return [started, finished]
