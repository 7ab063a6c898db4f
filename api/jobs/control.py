"""Carrying out what a user asks of a job: the core decides, this applies it in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs import schemas
from api.jobs.representation import represent_jobs
from api.jobs.submission import merge_patch
from api.visibility import get_visible_job
from models import Checkpoint, Job
from models.queries.attempts import ask_checkpoint, ask_stop
from models.queries.budgets import list_gpu_holders, list_keys, pick_budgets, read_month_budgets
from models.queries.checkpoints import select_committed
from models.queries.jobs import advance_job, record_event
from scheduler.core.budget import MONTH_IS_SPENT, describe_spent, find_spent
from scheduler.core.control import Action, Already, AskStop, Now, SetHold, decide_action
from scheduler.core.errors import Conflict, IllegalTransition, NotFound
from scheduler.core.reasons import Reason
from scheduler.core.spec import read_spec
from scheduler.core.states import JobEvent, JobState


class BudgetIsSpent(Conflict):
    """The job may use no more GPU-hours."""

    code = "budget_spent"


class NoCheckpoint(Conflict):
    """The job has nothing to start from."""

    code = "no_checkpoint"


def act_on_job(
    session: Session, caller: Caller, job_id: str, action: Action, *, now: datetime
) -> schemas.Job:
    """Do what `action` means in the job's state; asking twice does no more than once.

    Raises:
        NotFound, IllegalTransition: there is no such job, or its state does not allow it.
        BudgetIsSpent: it would be stopped again at once.
    """
    job = get_visible_job(session, caller, job_id)
    data = {"by": caller.key_id}
    effect = decide_action(job.id, job.state, job.stop_reason, action)
    if isinstance(effect, Now) and effect.event is JobEvent.RESUMED:
        _refuse_spent(session, job, now=now)
    match effect:
        case Now():
            advance_job(session, job, effect.event, reason=effect.reason, now=now, data=data)
        case AskStop():
            ask_stop(session, job, reason=effect.reason, now=now, data=data)
        case SetHold():
            if job.is_held != effect.is_held:
                job.is_held = effect.is_held
                kind = "job.held" if effect.is_held else "job.released"
                record_event(session, job, kind, now=now, data=data)
        case Already():
            pass
        case _:
            assert_never(effect)
    (shown,) = represent_jobs(session, [job])
    return shown


def _refuse_spent(session: Session, job: Job, *, now: datetime) -> None:
    limits = read_spec(job.spec).limits
    holders = list_gpu_holders(session)
    budgets = read_month_budgets(session, holders, now=now)
    takes_gpus = job.gpu_ms > 0 or bool(job.request_gpus)
    keys = list_keys(job.project_id, job.created_by) if takes_gpus else ()
    match find_spent(limits.gpu_hours, gpu_ms=job.gpu_ms, months=pick_budgets(budgets, keys)):
        case Reason.BUDGET_REACHED:
            raise BudgetIsSpent(f"{job.id} {describe_spent(limits)}")
        case Reason.BUDGET_SPENT:
            raise BudgetIsSpent(f"{job.id}: {MONTH_IS_SPENT}")
        case _:
            return


def request_checkpoint(
    session: Session, caller: Caller, job_id: str, *, now: datetime
) -> schemas.Job:
    """Ask the running attempt to save at its next opportunity.

    Raises:
        NotFound, IllegalTransition: there is no such job, or it does not run.
    """
    job = get_visible_job(session, caller, job_id)
    if job.state is not JobState.RUNNING:
        raise IllegalTransition(job.id, job.state, "checkpoint", [JobState.RUNNING])
    ask_checkpoint(session, job)
    record_event(session, job, "job.checkpoint_asked", now=now, data={"by": caller.key_id})
    (shown,) = represent_jobs(session, [job])
    return shown


def plan_fork(
    session: Session, caller: Caller, job_id: str, request: schemas.ForkRequest
) -> dict[str, Any]:
    """Return the spec of a job that goes on from a checkpoint of this one.

    Raises:
        NotFound: there is no such job, or no such checkpoint of it.
        NoCheckpoint: none is named, and there is none.
    """
    job = get_visible_job(session, caller, job_id)
    committed = select_committed(job.id)
    if request.checkpoint is not None:
        found = session.scalar(committed.where(Checkpoint.id == request.checkpoint))
        if found is None:
            raise NotFound("this checkpoint of the job")
    else:
        found = session.scalar(committed.limit(1))
        if found is None:
            raise NoCheckpoint(f"{job.id} has no checkpoint yet: wait for one, or use rerun")
    document = {**plan_rerun(session, caller, job_id), "resume_from": found.id}
    forked: dict[str, Any] = merge_patch(document, request.overrides)
    return forked


def plan_rerun(session: Session, caller: Caller, job_id: str) -> dict[str, Any]:
    """Return the spec of a job that does the same again, at once.

    Name, labels and priority are those that the job has now.

    Raises:
        NotFound: there is no such job.
    """
    job: Job = get_visible_job(session, caller, job_id)
    present = {"name": job.name, "labels": dict(job.labels), "priority": job.priority}
    # What it waited for is over, or was taken away since.
    return {**job.spec, **present, "hold": False, "begin_at": None, "depends_on": []}
