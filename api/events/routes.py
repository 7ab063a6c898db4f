"""The history of a job over HTTP: in pages, and as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import ConfigDep, CurrentCaller, DatabaseDep, PageDep, ReadSession, StreamsDep
from api.events import schemas
from api.pages import cut_page, read_after
from api.streams import (
    SSE_RESPONSES,
    StreamEvent,
    StreamPage,
    read_last_event_id,
    stream_response,
)
from api.strict import StrictRoute
from api.visibility import get_visible_job
from models import Database, Event, Job
from models.queries.jobs import job_topic

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"], route_class=StrictRoute)

_STREAM_PAGE = 200


@router.get("", operation_id="jobs_list_events")
def list_(
    job_id: str, caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep
) -> schemas.EventList:
    """List what happened to a job, oldest first."""
    job = get_visible_job(session, caller, job_id)
    list_name = f"events/{job.id}"
    after = read_after(config.signing_key, list_name, page)
    rows = _list_events(session, job, 0 if after is None else int(after), page.limit + 1)
    keys = [event.seq for event in rows]
    shown, has_more, cursor = cut_page(config.signing_key, list_name, rows, keys, page.limit)
    data = [_represent(event) for event in shown]
    return schemas.EventList(data=data, has_more=has_more, next_cursor=cursor)


@router.get(
    "/stream",
    operation_id="jobs_stream_events",
    response_class=StreamingResponse,
    responses=SSE_RESPONSES,
)
async def stream(
    job_id: str,
    request: Request,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    after: Annotated[
        int | None,
        Query(ge=0, le=2**31 - 1, description="`seq` after which to begin; 0 for all."),
    ] = None,
) -> StreamingResponse:
    """Stream what happened and what happens to a job; `event: end` follows its last event.

    Each event's `id` is its `seq`, its `data` an Event. `Last-Event-ID` goes before `after`.
    """
    position = read_last_event_id(request, after)

    async def read_page(seq: int) -> StreamPage:
        return await run_in_threadpool(_read_page, database, caller, job_id, seq)

    # A job that is not there is answered with a problem, not with a stream.
    await run_in_threadpool(_check_visible, database, caller, job_id)
    return stream_response(streams, job_topic(job_id), read_page, position)


def _check_visible(database: Database, caller: Caller, job_id: str) -> None:
    with database.read() as session:
        get_visible_job(session, caller, job_id)


def _read_page(database: Database, caller: Caller, job_id: str, seq: int) -> StreamPage:
    with database.read() as session:
        job = get_visible_job(session, caller, job_id)
        rows = _list_events(session, job, seq, _STREAM_PAGE)
    events = [
        StreamEvent(id=str(row.seq), event=row.type, data=_represent(row).model_dump_json())
        for row in rows
    ]
    last = rows[-1].seq if rows else seq
    # The job was read before its events: whatever ended it is among them.
    is_end = job.is_terminal and last >= job.version
    data = {"state": job.state.value, "reason": job.reason, "version": job.version}
    return StreamPage(events=events, position=last, is_end=is_end, end_data=data)


def _list_events(session: Session, job: Job, after_seq: int, limit: int) -> Sequence[Event]:
    return session.scalars(
        select(Event)
        .where(Event.job_id == job.id, Event.seq > after_seq)
        .order_by(Event.seq)
        .limit(limit)
    ).all()


def _represent(event: Event) -> schemas.Event:
    return schemas.Event(
        job_id=event.job_id,
        seq=event.seq,
        type=event.type,
        state=event.state,
        reason=event.reason,
        message=event.message,
        data=event.data,
        created_at=event.created_at,
    )
