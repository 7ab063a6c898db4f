"""Submitting: from a checked document to a stored job, its first event and its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.idempotency import Answer, Ticket, write_once
from api.jobs.desk import Desk
from api.jobs.quota_rules import check_gpus, check_priority
from api.jobs.representation import render_job, represent_new_job
from api.jobs.resuming import hash_subject
from api.jobs.submission import Submission, read_submission
from api.problems import pointer_of
from models import Checkpoint, CheckpointState, File, Job, Project, new_id
from models.queries.jobs import add_dependencies, add_job
from models.queries.quotas import read_caps
from scheduler.core.errors import InvalidSpec, Problem
from scheduler.core.reasons import Reason
from scheduler.core.resources import gib_to_mib
from scheduler.core.spec import JobSpec, content_hash
from scheduler.core.spec_rules import World
from scheduler.core.states import JobState

_UNKNOWN_FILE = "unknown_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class _References:
    """What the names in a spec stand for in the database."""

    project_id: str
    project: str
    parent_job_id: str | None
    code_sha256: str | None
    problems: tuple[Problem, ...]
    waits_for: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A job that was just stored.

    Attributes:
        job: outside of the session.
        waits_for: the jobs it depends on that have not succeeded yet.
    """

    job: Job
    project: str
    waits_for: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A job as it would be stored.

    Attributes:
        waits_for: the jobs it depends on that have not succeeded yet.
    """

    spec: JobSpec
    document: dict[str, Any]
    name: str
    project_id: str
    project: str
    waits_for: tuple[str, ...]


def submit_job(
    desk: Desk,
    caller: Caller,
    document: Any,
    *,
    ticket: Ticket | None,
    now: datetime,
    parent_job_id: str | None = None,
) -> Answer:
    """Store the job that `document` asks for, or answer as before when `ticket` is known.

    Raises:
        InvalidSpec: it cannot be run; every problem is listed.
        IdempotencyMismatch: the ticket's key came with another body.
    """
    submission = read_spotless(desk, caller, document)

    def work(session: Session) -> Answer:
        stored = store_job(session, desk, caller, submission, now=now, parent_job_id=parent_job_id)
        job = stored.job
        body, etag = render_job(represent_new_job(session, job, stored.project, stored.waits_for))
        return Answer(
            status=HTTPStatus.CREATED, body=body, location=f"/v1/jobs/{job.id}", etag=etag
        )

    return write_once(desk.database, ticket, work, now=now)


def read_spotless(desk: Desk, caller: Caller, document: Any) -> Submission:
    """Return what `document` says, with which nothing is wrong but for what the database knows.

    Raises:
        InvalidSpec: something is; what the database knows is listed with the rest.
    """
    submission = _read(desk, document)
    if submission.problems:
        check_submission(desk, caller, submission)
    return submission


def store_job(
    session: Session,
    desk: Desk,
    caller: Caller,
    submission: Submission,
    *,
    now: datetime,
    parent_job_id: str | None = None,
) -> Stored:
    """Store a job with its first event, within the caller's transaction.

    Raises:
        InvalidSpec: the database knows something against it.
    """
    references = _resolve(session, caller, submission)
    if references.problems:
        raise InvalidSpec(references.problems)
    job = _make_job(submission, references, desk.version, caller, now)
    if parent_job_id is not None:
        job.parent_job_id = parent_job_id
    add_job(session, job, now=now, data={"by": caller.key_id})
    if submission.spec.depends_on:
        add_dependencies(session, job.id, submission.spec.depends_on)
    return Stored(job=job, project=references.project, waits_for=references.waits_for)


def validate_job(desk: Desk, caller: Caller, document: Any) -> dict[str, Any]:
    """Return the whole spec that `document` asks for.

    Raises:
        InvalidSpec: `submit_job` would refuse it; every problem is listed.
    """
    submission = _read(desk, document)
    return check_submission(desk, caller, submission)


def plan_job(desk: Desk, caller: Caller, document: Any, *, assume_files: bool) -> Planned:
    """Return the job that `document` asks for, without storing it.

    Args:
        assume_files: take files for uploaded that are not there.

    Raises:
        InvalidSpec: `submit_job` would refuse it; every problem is listed.
    """
    submission = _read(desk, document)
    with desk.database.read() as session:
        references = _resolve(session, caller, submission)
    if assume_files:
        kept = tuple(one for one in references.problems if one.code != _UNKNOWN_FILE)
        references = dataclasses.replace(references, problems=kept)
    return Planned(
        spec=submission.spec,
        document=_whole(submission, references),
        name=submission.spec.name or _default_name(submission.spec),
        project_id=references.project_id,
        project=references.project,
        waits_for=references.waits_for,
    )


def check_submission(desk: Desk, caller: Caller, submission: Submission) -> dict[str, Any]:
    """Return the submission's document if nothing at all is wrong with it.

    Raises:
        InvalidSpec: something is; what only the database knows is listed with the rest.
    """
    with desk.database.read() as session:
        references = _resolve(session, caller, submission)
    return _whole(submission, references)


def _whole(submission: Submission, references: _References) -> dict[str, Any]:
    """Return the document if nothing is wrong with it, else raise all that is."""
    known = {problem.pointer for problem in submission.problems}
    more = [problem for problem in references.problems if problem.pointer not in known]
    if submission.problems or more:
        raise InvalidSpec((*submission.problems, *more))
    return {**submission.document, "project": references.project}


def _read(desk: Desk, document: Any) -> Submission:
    def read(world: World) -> Submission:
        return read_submission(document, world, desk.recipes, grace_seconds=desk.grace_seconds)

    submission = read(desk.worlds.recent())
    return read(desk.worlds.fresh()) if submission.problems else submission


def _resolve(session: Session, caller: Caller, submission: Submission) -> _References:
    spec, problems = submission.spec, []
    project_id, project = caller.project_id, caller.project
    if submission.is_project_given and spec.project != project:
        found = None
        if caller.is_admin:
            found = session.scalar(select(Project.id).where(Project.name == spec.project))
        if found is None:
            message = "does not exist, or your key is not of it: leave project out"
            problems.append(Problem("/project", "unknown_project", message))
        else:
            project_id, project = found, spec.project
    hashes = _read_hashes(session, spec, project_id)
    problems.extend(_missing_files(spec, hashes))
    states = _read_states(session, spec, project_id)
    problems.extend(_bad_dependencies(spec, states))
    caps = read_caps(session, project_id, caller.key_id)
    problems.extend(check_priority(spec.priority, caps))
    problems.extend(check_gpus(submission.num_gpus, caps))
    parent_job_id = None
    if spec.resume_from is not None:
        checkpoint = session.get(Checkpoint, spec.resume_from)
        if checkpoint is None or not _may_resume(checkpoint, project_id):
            message = "there is no such checkpoint in the project: list those of a job first"
            problems.append(Problem("/resume_from", "unknown_checkpoint", message))
        else:
            parent_job_id = checkpoint.job_id
    return _References(
        project_id=project_id,
        project=project,
        parent_job_id=parent_job_id,
        code_sha256=None if spec.code is None else hashes.get(spec.code),
        problems=tuple(problems),
        waits_for=tuple(
            sorted(needed for needed, state in states.items() if state is not JobState.SUCCEEDED)
        ),
    )


def _read_hashes(session: Session, spec: JobSpec, project_id: str) -> dict[str, str]:
    """Return the hashes of the uploaded files that the spec names; those of the project."""
    named = {source for source in spec.inputs.values() if source.startswith("file_")}
    if spec.code is not None:
        named.add(spec.code)
    if not named:
        return {}
    rows = session.execute(
        select(File.id, File.sha256).where(File.id.in_(named), File.project_id == project_id)
    )
    return {row.id: row.sha256 for row in rows}


def _missing_files(spec: JobSpec, present: Collection[str]) -> list[Problem]:
    named = {"/code": spec.code} if spec.code is not None else {}
    for name, source in spec.inputs.items():
        if source.startswith("file_"):
            named[pointer_of(("inputs", name))] = source
    message = "there is no such file in the project: upload it first, with POST /v1/files"
    return [
        Problem(pointer, _UNKNOWN_FILE, message)
        for pointer, file_id in named.items()
        if file_id not in present
    ]


def _read_states(session: Session, spec: JobSpec, project_id: str) -> dict[str, JobState]:
    """Return where the jobs are that the spec depends on; those that there are in the project."""
    if not spec.depends_on:
        return {}
    rows = session.execute(
        select(Job.id, Job.state).where(Job.id.in_(spec.depends_on), Job.project_id == project_id)
    )
    return {row.id: row.state for row in rows}


def _bad_dependencies(spec: JobSpec, states: Mapping[str, JobState]) -> list[Problem]:
    problems = []
    for index, job_id in enumerate(spec.depends_on):
        pointer = f"/depends_on/{index}"
        state = states.get(job_id)
        if state is None:
            message = "there is no such job in the project: list its jobs with GET /v1/jobs"
            problems.append(Problem(pointer, "unknown_job", message))
        elif job_id in spec.depends_on[:index]:
            message = "the job is named before: name it once"
            problems.append(Problem(pointer, "named_twice", message))
        elif state in {JobState.FAILED, JobState.CANCELLED}:
            message = f"the job is {state} and will never succeed: rerun it, and name the new one"
            problems.append(Problem(pointer, "dependency_ended", message))
    return problems


def _may_resume(checkpoint: Checkpoint, project_id: str) -> bool:
    return checkpoint.project_id == project_id and checkpoint.state is CheckpointState.COMMITTED


def _make_job(
    submission: Submission,
    references: _References,
    version: str,
    caller: Caller,
    now: datetime,
) -> Job:
    spec = submission.spec
    document = {**submission.document, "project": references.project}
    begin_at = _future(spec.begin_at, now)
    reason, message = str(Reason.SUBMITTED), ""
    if spec.hold:
        reason, message = Reason.HELD_BY_USER, "held: release it to let it run"
    elif begin_at is not None:
        reason = Reason.BEGIN_TIME_NOT_REACHED
        message = f"starts no earlier than {begin_at:%Y-%m-%dT%H:%M:%SZ}"
    request = spec.resources
    return Job(
        id=new_id("job"),
        project_id=references.project_id,
        name=spec.name or _default_name(spec),
        recipe=spec.recipe,
        labels=dict(spec.labels),
        spec=document,
        spec_sha256=content_hash(document),
        state=JobState.PENDING,
        reason=reason,
        message=message,
        state_changed_at=now,
        epoch=0,
        priority=spec.priority,
        queue=spec.queue,
        pool=spec.pool,
        num_workers=spec.num_workers,
        request_gpus=request.gpus,
        request_cpu_milli=None if request.cpus is None else round(request.cpus * 1000),
        request_memory_mib=gib_to_mib(request.memory_gib),
        request_gpu_models=list(request.gpu_models) or None,
        request_gpu_memory_mib=gib_to_mib(request.gpu_memory_gib),
        may_spread=request.spread,
        is_held=spec.hold,
        not_before_at=begin_at,
        not_before_reason=None if begin_at is None else Reason.BEGIN_TIME_NOT_REACHED,
        checkpoint_serial=0,
        user_failures=0,
        infra_failures=0,
        num_attempts=0,
        evictions=0,
        served_ms=0,
        gpu_ms=0,
        deadline_served_ms=0,
        resume_sha256=hash_subject(document, references.code_sha256, version),
        parent_job_id=references.parent_job_id,
        created_by=caller.key_id,
        created_at=now,
    )


def _future(begin_at: str | None, now: datetime) -> datetime | None:
    if begin_at is None:
        return None
    instant = datetime.fromisoformat(begin_at).astimezone(UTC)
    return instant if instant > now else None


def _default_name(spec: JobSpec) -> str:
    if spec.recipe is not None:
        return spec.recipe
    return PurePosixPath(spec.entrypoint or "job").stem[:128]
