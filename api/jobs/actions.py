"""What may be asked of a job, over HTTP. Each answers with the job as it is then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import DatabaseDep, MemberCaller
from api.errors import problem_responses
from api.idempotency import Answer, IdempotencyKey, Ticket, read_ticket, write_once
from api.jobs import schemas
from api.jobs.control import act_on_job, plan_fork, plan_rerun, request_checkpoint
from api.jobs.desk import Desk, DeskDep
from api.jobs.documentation import CREATED, SHOWN
from api.jobs.representation import render_job
from api.jobs.resize import resize_job
from api.jobs.submit import submit_job
from api.preconditions import IfMatch
from api.strict import StrictRoute
from models import Database
from scheduler.core.control import Action

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=StrictRoute)

Change = Callable[[Session, datetime], schemas.Job]


async def _ticket(
    request: Request, caller: MemberCaller, idempotency_key: IdempotencyKey = None
) -> Ticket | None:
    document = await request.json() if await request.body() else None
    return read_ticket(request, caller, idempotency_key, document or {})  # `{}` may be left out


TicketDep = Annotated[Ticket | None, Depends(_ticket)]
Nothing = schemas.NoDocument | None
_ANSWERS: dict[int | str, dict[str, Any]] = {**SHOWN, **problem_responses(409)}
_NEW: dict[int | str, dict[str, Any]] = {**CREATED, **problem_responses(409)}


@router.post("/cancel", operation_id="jobs_cancel", response_class=Response, responses=_ANSWERS)
async def cancel(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """End the job for good: at once while it waits, else after its grace period."""
    return await _act(database, caller, job_id, Action.CANCEL, ticket)


@router.post("/pause", operation_id="jobs_pause", response_class=Response, responses=_ANSWERS)
async def pause(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Save and stop; the job holds no resources until it is resumed."""
    return await _act(database, caller, job_id, Action.PAUSE, ticket)


@router.post("/resume", operation_id="jobs_resume", response_class=Response, responses=_ANSWERS)
async def resume(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Let a paused job go on from its newest checkpoint."""
    return await _act(database, caller, job_id, Action.RESUME, ticket)


@router.post("/hold", operation_id="jobs_hold", response_class=Response, responses=_ANSWERS)
async def hold(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Keep a waiting job from starting."""
    return await _act(database, caller, job_id, Action.HOLD, ticket)


@router.post("/release", operation_id="jobs_release", response_class=Response, responses=_ANSWERS)
async def release(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Let a held job start when its turn comes."""
    return await _act(database, caller, job_id, Action.RELEASE, ticket)


@router.post(
    "/checkpoint", operation_id="jobs_checkpoint", response_class=Response, responses=_ANSWERS
)
async def checkpoint(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Ask a running job to save at its next opportunity."""

    def change(session: Session, now: datetime) -> schemas.Job:
        return request_checkpoint(session, caller, job_id, now=now)

    return await _change(database, ticket, change)


@router.post(
    "/resize",
    operation_id="jobs_resize",
    response_class=Response,
    responses={**SHOWN, **problem_responses(409, 412, 422)},
)
async def resize(
    job_id: str,
    body: schemas.ResizeRequest,
    caller: MemberCaller,
    desk: DeskDep,
    ticket: TicketDep,
    if_match: IfMatch = None,
) -> Response:
    """Change how many workers a job has that was submitted with `elastic`.

    At once while it holds no places. A running job saves, stops, waits for room for its new size
    and goes on from that checkpoint; the global batch stays, and each sample comes once per epoch.
    """
    # Before the transaction: a world is read in one of its own.
    world = await run_in_threadpool(desk.worlds.fresh)

    def change(session: Session, now: datetime) -> schemas.Job:
        return resize_job(
            session,
            caller,
            job_id,
            body.workers,
            desk=desk,
            world=world,
            if_match=if_match,
            now=now,
        )

    return await _change(desk.database, ticket, change)


@router.post(
    "/fork",
    operation_id="jobs_fork",
    response_class=Response,
    status_code=201,
    responses=_NEW,
)
async def fork(
    job_id: str,
    caller: MemberCaller,
    desk: DeskDep,
    ticket: TicketDep,
    body: schemas.ForkRequest | None = None,
) -> Response:
    """Submit a new job that goes on from a checkpoint of this one, with changes to its spec."""
    request = body or schemas.ForkRequest()

    def plan(session: Session) -> dict[str, Any]:
        return plan_fork(session, caller, job_id, request)

    return await _submit(desk, caller, job_id, ticket, plan)


@router.post(
    "/rerun",
    operation_id="jobs_rerun",
    response_class=Response,
    status_code=201,
    responses=_NEW,
)
async def rerun(
    job_id: str,
    caller: MemberCaller,
    desk: DeskDep,
    ticket: TicketDep,
    body: Nothing = None,
) -> Response:
    """Submit a new job that does the same from the beginning."""

    def plan(session: Session) -> dict[str, Any]:
        return plan_rerun(session, caller, job_id)

    return await _submit(desk, caller, job_id, ticket, plan)


async def _act(
    database: Database, caller: Caller, job_id: str, action: Action, ticket: Ticket | None
) -> Response:
    def change(session: Session, now: datetime) -> schemas.Job:
        return act_on_job(session, caller, job_id, action, now=now)

    return await _change(database, ticket, change)


async def _change(database: Database, ticket: Ticket | None, change: Change) -> Response:
    def work() -> Response:
        now = datetime.now(UTC)

        def answer(session: Session) -> Answer:
            body, etag = render_job(change(session, now))
            return Answer(status=HTTPStatus.OK, body=body, etag=etag)

        return write_once(database, ticket, answer, now=now).render()

    return await run_in_threadpool(work)


async def _submit(
    desk: Desk,
    caller: Caller,
    job_id: str,
    ticket: Ticket | None,
    plan: Callable[[Session], dict[str, Any]],
) -> Response:
    def work() -> Response:
        with desk.database.read() as session:
            document = plan(session)
        return submit_job(
            desk, caller, document, ticket=ticket, now=datetime.now(UTC), parent_job_id=job_id
        ).render()

    return await run_in_threadpool(work)
