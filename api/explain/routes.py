"""Ask why: the explanation of a job, and of one that is not submitted yet."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import CurrentCaller, DatabaseDep, MemberCaller, Now
from api.errors import ErrorItem, problem_responses
from api.explain import schemas
from api.explain.answers import (
    describe_job,
    is_about,
    show_ahead,
    show_options,
    show_start,
    show_steps,
)
from api.explain.communication import Hints, foresee
from api.explain.oracle import Oracle, OracleDep
from api.explain.pace import find_pace
from api.explain.ranks import RankNow, read_rank
from api.jobs.desk import Desk, DeskDep
from api.jobs.documentation import DRAFT_BODY
from api.jobs.submit import Planned, plan_job
from api.recipes.layout_rules import read_defaults
from api.strict import StrictRoute, check_json_type, parse_json, read_body
from api.visibility import get_visible_job
from models import Attempt, AttemptNode, Database, Job, Node, Project
from scheduler.core.errors import InvalidSpec
from scheduler.core.explain import Waiting
from scheduler.core.forecast import Unknown
from scheduler.core.reasons import Reason
from scheduler.core.spec_rules import count_gpus
from scheduler.core.states import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

_TRIES = 3
_BEFORE_THE_LINE = frozenset(
    {
        Reason.HELD_BY_USER,
        Reason.DEPENDENCY_NOT_MET,
        Reason.BEGIN_TIME_NOT_REACHED,
        Reason.QUEUE_CLOSED,
    }
)


@router.get("/{job_id}/explain", operation_id="jobs_explain")
def explain(
    job_id: str, caller: CurrentCaller, database: DatabaseDep, oracle: OracleDep, now: Now
) -> schemas.Explanation:
    """Say why a job is where it is, what comes next, and what can be done.

    Of a job that waits: what stands in its way, who goes first (other projects' jobs are counted
    only), when it starts, and what would let it start sooner, each simulated. Of one that runs:
    when it ends, what its ranks do with their time, and which of them is slow. Of one that has
    ended: the cause. What cannot be told is withheld, and why.
    """
    for _ in range(_TRIES):
        job, project, ranks = _read(database, caller, job_id)
        said = None
        if oracle is not None and _is_scheduled(job.state):
            said = oracle.explain(job.id, version=job.version, now=now)
        if oracle is None or is_about(said, job.state):
            return describe_job(job, project, said, now, ranks)
    # It moves faster than anybody can look: its row is true all the same.
    return describe_job(job, project, None, now, ranks)


@router.post(
    "/simulate",
    operation_id="jobs_simulate",
    response_model=schemas.Simulation,
    responses=problem_responses(422),
    openapi_extra=DRAFT_BODY,
)
async def simulate(
    request: Request,
    caller: MemberCaller,
    desk: DeskDep,
    oracle: OracleDep,
    assume_files: Annotated[
        bool,
        Query(description="Take files for uploaded that are not there: code and inputs."),
    ] = False,
    num_parameters: Annotated[
        int | None,
        Query(ge=1, le=10**15, description="Of the model, where the service cannot know it."),
    ] = None,
    link_mbit: Annotated[
        float | None,
        Query(gt=0, le=1e9, description="Of the slowest link between two ranks, each way."),
    ] = None,
) -> schemas.Simulation:
    """Say what would become of this spec if it were submitted now, without submitting it.

    Everything that submitting would refuse is listed; else the answer is that of `explain`, and
    what the ranks would send each other. Nothing is stored.
    """
    hints = Hints(num_parameters=num_parameters, link_mbit=link_mbit)
    body = await read_body(request)
    check_json_type(request)

    def work() -> schemas.Simulation:
        now = datetime.now(UTC)
        return _simulate(desk, oracle, caller, parse_json(body), hints, assume_files, now)

    return await run_in_threadpool(work)


def _simulate(
    desk: Desk,
    oracle: Oracle | None,
    caller: Caller,
    document: Any,
    hints: Hints,
    assume_files: bool,
    now: datetime,
) -> schemas.Simulation:
    try:
        planned = plan_job(desk, caller, document, assume_files=assume_files)
    except InvalidSpec as error:
        return schemas.Simulation(
            would_be_accepted=False,
            errors=[
                ErrorItem(pointer=one.pointer, code=one.code, message=one.message)
                for one in error.problems
            ],
            project=None,
            state=None,
            reason=None,
            message="it would be refused",
            asked_at=now,
            numbers={},
            ahead=None,
            start=None,
            options=[],
            options_complete=True,
            next=[],
            communication=None,
            spec=None,
        )
    if oracle is None:
        why = Unknown(why="this process has no view of the scheduler")
        said = Waiting(job_id="", reason=Reason.SUBMITTED, message="", start=why)
    else:
        said = oracle.simulate(
            dataclasses.replace(planned.spec, name=planned.name),
            project_id=planned.project_id,
            project=planned.project,
            user=caller.key_id or "",
            waits_for=planned.waits_for,
            now=now,
        )
    is_before_the_line = said.reason in _BEFORE_THE_LINE
    return schemas.Simulation(
        would_be_accepted=True,
        errors=[],
        project=planned.project,
        state=JobState.PENDING if is_before_the_line else JobState.QUEUED,
        reason=said.reason,
        message=said.message,
        asked_at=now,
        numbers=said.numbers,
        ahead=show_ahead(said.ahead),
        start=show_start(said.start, said.latest_start_ms),
        options=show_options(said, planned.document),
        options_complete=said.are_options_complete,
        next=show_steps(said.reason, "JOB"),
        communication=_foresee(desk, planned, hints),
        spec=planned.document,
    )


def _foresee(desk: Desk, planned: Planned, hints: Hints) -> schemas.Communication | None:
    spec = planned.spec
    with desk.database.read() as session:
        pace = find_pace(session, planned.project_id, spec)
    recipe = desk.recipes.get(spec.recipe or "")
    defaults = read_defaults(recipe) if recipe else {}
    has_gpus = count_gpus(spec, desk.worlds.recent()) > 0
    return foresee(spec, defaults, pace, hints, has_gpus=has_gpus)


def _read(database: Database, caller: Caller, job_id: str) -> tuple[Job, str, list[RankNow]]:
    with database.read() as session:
        job = get_visible_job(session, caller, job_id)
        project = session.get_one(Project, job.project_id)
        ranks = _list_ranks(session, job) if job.state is JobState.RUNNING else []
        session.expunge_all()
        return job, project.name, ranks


def _list_ranks(session: Session, job: Job) -> list[RankNow]:
    """Return the ranks of the live attempt, as their supervisors saw them last."""
    rows = session.execute(
        select(AttemptNode.workers, Node.name)
        .join(Attempt, Attempt.id == AttemptNode.attempt_id)
        .join(Node, Node.id == AttemptNode.node_id)
        .where(Attempt.job_id == job.id, Attempt.ended_at.is_(None))
    )
    found = [read_rank(worker, node) for workers, node in rows for worker in workers or ()]
    return sorted(found, key=lambda rank: rank.rank)


def _is_scheduled(state: JobState) -> bool:
    return state in {JobState.PENDING, JobState.QUEUED} or state.has_attempt
