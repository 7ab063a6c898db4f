"""Queues over HTTP. There is one, `default`; the counts are over the jobs that the key may see."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.deps import CurrentCaller, ReadSession
from api.queues import schemas
from api.strict import StrictRoute
from models import Job
from scheduler.core.errors import NotFound
from scheduler.core.states import LIVE_STATES, TERMINAL_STATES, JobState

router = APIRouter(prefix="/v1/queues", tags=["queues"], route_class=StrictRoute)

QUEUE = "default"


@router.get("", operation_id="queues_list")
def list_(caller: CurrentCaller, session: ReadSession) -> schemas.QueueList:
    """List the queues; there is one page."""
    return schemas.QueueList(data=[_count(session, caller)], has_more=False, next_cursor=None)


@router.get("/{name}", operation_id="queues_get")
def get(name: str, caller: CurrentCaller, session: ReadSession) -> schemas.Queue:
    """Read a queue."""
    if name != QUEUE:
        raise NotFound("this queue")
    return _count(session, caller)


def _count(session: Session, caller: Caller) -> schemas.Queue:
    statement = select(Job.state, func.count()).where(Job.state.not_in(TERMINAL_STATES))
    if not caller.is_admin:
        statement = statement.where(Job.project_id == caller.project_id)
    rows = session.execute(statement.group_by(Job.state))
    counts: dict[JobState, int] = {row[0]: row[1] for row in rows}
    return schemas.Queue(
        name=QUEUE,
        num_waiting=counts.get(JobState.QUEUED, 0),
        num_pending=counts.get(JobState.PENDING, 0),
        num_active=sum(counts.get(state, 0) for state in LIVE_STATES),
    )
