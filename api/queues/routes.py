"""Queues over HTTP: lines in front of pools. Counts are over the jobs that the key may see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.deps import (
    AdminCaller,
    ConfigDep,
    CurrentCaller,
    DatabaseDep,
    Now,
    PageDep,
    ReadSession,
    WriteSession,
)
from api.errors import NameTaken, problem_responses
from api.idempotency import Answer, IdempotencyKey, read_ticket, write_once
from api.pages import cut_page, read_after
from api.queues import schemas
from api.strict import StrictRoute
from models import Job, Pool, Queue, announce
from models.queries.jobs import JOBS_TOPIC
from scheduler.core.errors import Invalid, NotFound, Problem
from scheduler.core.states import LIVE_STATES, TERMINAL_STATES, JobState

_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": schemas.Queue,
        "description": "The new queue.",
        "headers": {
            "Location": {"x-header": "Location"},
            "Idempotency-Replayed": {"x-header": "Idempotency-Replayed"},
        },
    }
}

router = APIRouter(prefix="/v1/queues", tags=["queues"], route_class=StrictRoute)


@router.post(
    "",
    operation_id="queues_create",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    responses={**_CREATED, **problem_responses(409)},
)
def create(
    wanted: schemas.QueueRequest,
    caller: AdminCaller,
    database: DatabaseDep,
    request: Request,
    now: Now,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a queue in front of a pool."""
    ticket = read_ticket(request, caller, idempotency_key, wanted.model_dump())

    def work(session: Session) -> Answer:
        (shown,) = _represent(session, caller, [_add(session, wanted, now)])
        location = f"/v1/queues/{wanted.name}"
        body = shown.model_dump_json().encode()
        return Answer(status=HTTPStatus.CREATED, body=body, location=location)

    return write_once(database, ticket, work, now=now).render()


@router.get("", operation_id="queues_list")
def list_(
    caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep
) -> schemas.QueueList:
    """List the queues by name."""
    statement = select(Queue).order_by(Queue.name).limit(page.limit + 1)
    after = read_after(config.signing_key, "queues", page)
    if after is not None:
        statement = statement.where(Queue.name > str(after))
    rows = session.scalars(statement).all()
    keys = [queue.name for queue in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "queues", rows, keys, page.limit)
    data = _represent(session, caller, shown)
    return schemas.QueueList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{name}", operation_id="queues_get")
def get(name: str, caller: CurrentCaller, session: ReadSession) -> schemas.Queue:
    """Read a queue."""
    (shown,) = _represent(session, caller, [_get_queue(session, name)])
    return shown


@router.patch("/{name}", operation_id="queues_update")
def update(
    name: str, patch: schemas.QueuePatch, caller: AdminCaller, session: WriteSession
) -> schemas.Queue:
    """Close a queue, or open it again. What runs goes on, what waits keeps its place."""
    queue = _get_queue(session, name)
    queue.is_open = patch.open
    announce(session, JOBS_TOPIC)
    session.flush()
    (shown,) = _represent(session, caller, [queue])
    return shown


def _add(session: Session, wanted: schemas.QueueRequest, now: datetime) -> Queue:
    if session.get(Queue, wanted.name) is not None:
        raise NameTaken("there is a queue of that name: choose another one")
    if session.get(Pool, wanted.pool) is None:
        message = "there is no such pool: list them with GET /v1/pools"
        raise Invalid(message, problems=[Problem("/pool", "unknown_pool", message)])
    queue = Queue(name=wanted.name, pool=wanted.pool, is_open=wanted.open, created_at=now)
    session.add(queue)
    session.flush()
    return queue


def _get_queue(session: Session, name: str) -> Queue:
    queue = session.get(Queue, name)
    if queue is None:
        raise NotFound("this queue")
    return queue


def _represent(session: Session, caller: Caller, queues: Sequence[Queue]) -> list[schemas.Queue]:
    statement = select(Job.queue, Job.state, func.count()).where(
        Job.state.not_in(TERMINAL_STATES), Job.queue.in_([queue.name for queue in queues])
    )
    if not caller.is_admin:
        statement = statement.where(Job.project_id == caller.project_id)
    rows = session.execute(statement.group_by(Job.queue, Job.state))
    counts: dict[tuple[str, JobState], int] = {(row[0], row[1]): row[2] for row in rows}
    return [
        schemas.Queue(
            name=queue.name,
            pool=queue.pool,
            open=queue.is_open,
            num_waiting=counts.get((queue.name, JobState.QUEUED), 0),
            num_pending=counts.get((queue.name, JobState.PENDING), 0),
            num_active=sum(counts.get((queue.name, state), 0) for state in LIVE_STATES),
            created_at=queue.created_at,
        )
        for queue in queues
    ]
