"""Changing the number of workers of a job: at once, or as soon as its attempt has saved."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs import schemas
from api.jobs.desk import Desk
from api.jobs.quota_rules import check_gpus
from api.jobs.representation import represent_jobs
from api.jobs.resuming import hash_subject
from api.jobs.submission import read_submission
from api.preconditions import check_version
from api.visibility import get_visible_job
from models import File, Job
from models.queries.attempts import ask_stop
from models.queries.jobs import record_event
from models.queries.quotas import read_caps
from models.queries.resizing import take_size
from scheduler.core.errors import Conflict, InvalidSpec, Problem
from scheduler.core.reasons import Reason
from scheduler.core.resizing import (
    SizeAlready,
    SizeAtEnd,
    SizeKept,
    SizeNow,
    check_size,
    decide_resize,
    resize_document,
)
from scheduler.core.spec import read_spec
from scheduler.core.spec_rules import World


class NotElastic(Conflict):
    """The job was submitted with one size."""

    code = "not_elastic"


def resize_job(
    session: Session,
    caller: Caller,
    job_id: str,
    num_workers: int,
    *,
    desk: Desk,
    world: World,
    if_match: str | None,
    now: datetime,
) -> schemas.Job:
    """Let a job have `num_workers`; asking for what it has, or is to have, changes nothing.

    A job that holds no places has them at once. An attempt keeps its size, and is asked to save and
    stop; whoever asks again before it has stopped decides, also for the size that it has.

    Raises:
        NotFound: there is no such job.
        PreconditionFailed: `if_match` names another version.
        NotElastic: it has no bounds to be resized in.
        IllegalTransition: it ends, and will not run again.
        InvalidSpec: it may not have that size: its bounds, its replicas, its mode, its quota or its
            pool say so.
    """
    job = get_visible_job(session, caller, job_id)
    check_version(if_match, "job", job.version)
    spec = read_spec(job.spec)
    if spec.elastic is None:
        raise NotElastic(
            f"{job.id} was submitted without elastic, so it keeps its {job.num_workers} workers: "
            'fork it with overrides such as {"elastic": {"min_workers": 1, "max_workers": 8}}'
        )
    effect = decide_resize(
        job.id,
        job.state,
        job.stop_reason,
        num_workers=job.num_workers,
        planned=job.resize_to,
        wanted=num_workers,
    )
    if isinstance(effect, SizeNow | SizeAtEnd):
        problems = tuple(check_size(spec, num_workers))
        problems = problems or _find_problems(session, job, num_workers, desk, world)
        if problems:
            raise InvalidSpec(problems)
    data = {"by": caller.key_id, "workers": num_workers, "workers_before": job.num_workers}
    match effect:
        case SizeNow():
            resume_sha256 = _hash_resized(session, job, num_workers, desk.version)
            take_size(job, num_workers, resume_sha256=resume_sha256)
            record_event(session, job, "job.resized", now=now, data=data)
        case SizeAtEnd():
            job.resize_to = num_workers
            job.resize_resume_sha256 = _hash_resized(session, job, num_workers, desk.version)
            if effect.asks_stop:
                ask_stop(session, job, reason=Reason.RESIZING, now=now, data=data)
            else:
                record_event(session, job, "job.resize_asked", now=now, data=data)
        case SizeKept():
            told = {"by": caller.key_id, "workers": num_workers, "called_off": job.resize_to}
            job.resize_to = job.resize_resume_sha256 = None
            record_event(session, job, "job.resize_called_off", now=now, data=told)
        case SizeAlready():
            pass
        case _:
            assert_never(effect)
    (shown,) = represent_jobs(session, [job])
    return shown


def _find_problems(
    session: Session, job: Job, num_workers: int, desk: Desk, world: World
) -> tuple[Problem, ...]:
    """Return what would be wrong with the job at its new size and is not wrong with it now.

    One that shrinks may have too much of something still, such as GPUs beyond a quota that was
    lowered: it has less than before.
    """
    caps = read_caps(session, job.project_id, job.created_by)

    def find(document: dict[str, Any]) -> list[Problem]:
        submission = read_submission(document, world, desk.recipes)
        return [*submission.problems, *check_gpus(submission.num_gpus, caps)]

    present, resized = find(job.spec), find(resize_document(job.spec, num_workers))
    if num_workers < job.num_workers:
        known = {(problem.pointer, problem.code) for problem in present}
        return tuple(one for one in resized if (one.pointer, one.code) not in known)
    # A message has the numbers, so more of the same is another problem.
    return tuple(problem for problem in resized if problem not in present)


def _hash_resized(session: Session, job: Job, num_workers: int, version: str) -> str | None:
    """Return the hash of what decides how the job resumes at that size, None without its code."""
    document = resize_document(job.spec, num_workers)
    code_sha256 = None
    if document["code"] is not None:
        code_sha256 = session.scalar(select(File.sha256).where(File.id == document["code"]))
        if code_sha256 is None:
            return None
    return hash_subject(document, code_sha256, version)
