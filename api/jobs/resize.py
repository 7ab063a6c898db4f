"""Changing the number of workers of a job: at once, or as soon as its attempt has saved."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs import schemas
from api.jobs.representation import represent_jobs
from api.jobs.submission import Submission, read_submission
from api.preconditions import check_version
from api.recipes.catalogue import Recipe
from api.visibility import get_visible_job
from models import Job
from models.queries.attempts import ask_stop
from models.queries.jobs import record_event
from models.queries.quotas import read_caps
from models.queries.resizing import take_size
from scheduler.core.errors import Conflict, InvalidSpec, Problem
from scheduler.core.reasons import Reason
from scheduler.core.resizing import (
    SizeAlready,
    SizeAtEnd,
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
    world: World,
    recipes: Mapping[str, Recipe],
    if_match: str | None,
    now: datetime,
) -> schemas.Job:
    """Let a job have `num_workers`; asking for what it has, or is to have, changes nothing.

    A job that holds no places has them at once. An attempt keeps its size, and is asked to save and
    stop; whoever asks again before it has stopped decides.

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
    if not isinstance(effect, SizeAlready):
        problems = tuple(check_size(spec, num_workers))
        problems = problems or _find_problems(session, job, num_workers, world, recipes)
        if problems:
            raise InvalidSpec(problems)
    data = {"by": caller.key_id, "workers": num_workers, "workers_before": job.num_workers}
    match effect:
        case SizeNow():
            take_size(job, num_workers)
            record_event(session, job, "job.resized", now=now, data=data)
        case SizeAtEnd():
            job.resize_to = num_workers
            if effect.asks_stop:
                ask_stop(session, job, reason=Reason.RESIZING, now=now, data=data)
            else:
                record_event(session, job, "job.resize_asked", now=now, data=data)
        case SizeAlready():
            pass
        case _:
            assert_never(effect)
    (shown,) = represent_jobs(session, [job])
    return shown


def _find_problems(
    session: Session,
    job: Job,
    num_workers: int,
    world: World,
    recipes: Mapping[str, Recipe],
) -> tuple[Problem, ...]:
    """Return what would be wrong with the job at its new size and is not wrong with it now."""
    resized = read_submission(resize_document(job.spec, num_workers), world, recipes)
    present = read_submission(job.spec, world, recipes).problems
    found = [problem for problem in resized.problems if problem not in present]
    found.extend(_beyond_quota(session, job, resized))
    return tuple(found)


def _beyond_quota(session: Session, job: Job, resized: Submission) -> list[Problem]:
    limit = read_caps(session, job.project_id, job.created_by).limit_gpus
    if limit is None or resized.num_gpus <= limit:
        return []
    message = (
        f"the job would take {resized.num_gpus} GPUs, the quota allows {limit} at once: ask for "
        "fewer workers, or have an admin raise it"
    )
    return [Problem("/workers", "beyond_quota", message)]
