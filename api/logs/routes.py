"""What the ranks of a job printed, for its users: pages, text, NDJSON and a live stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.attempts.naming import get_attempt_id, map_attempt_numbers
from api.auth.callers import Caller
from api.deps import CurrentCaller, DatabaseDep, StreamsDep
from api.errors import BadParameter
from api.logs.chunks import LogFilter
from api.logs.ingest import logs_topic
from api.logs.opened import OpenedLog, render_text
from api.logs.reader import Entry, Position, parse_position
from api.logs.schemas import LogPage
from api.streams import SSE_RESPONSES, StreamEvent, StreamPage, stream_response
from api.strict import StrictRoute
from api.visibility import get_visible_job
from models import Database

router = APIRouter(tags=["logs"], route_class=StrictRoute)

LIMIT_DEFAULT = 1000
LIMIT_MAX = 10_000

_ALL_LINES = 2000
_MEDIA_TYPES = ("application/json", "text/plain", "application/x-ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which lines are asked for."""

    rank: int | None
    stream: str | None
    attempt: str | None
    grep: str | None


async def _selection(
    rank: Annotated[int | None, Query(ge=0, le=999_999, description="Only of this rank.")] = None,
    stream: Annotated[
        Literal["stdout", "stderr"] | None, Query(description="Only of this stream.")
    ] = None,
    attempt: Annotated[
        str | None,
        Query(min_length=1, max_length=40, description="Only of this attempt: number or id."),
    ] = None,
    grep: Annotated[
        str | None,
        Query(min_length=1, max_length=1000, description="Only lines that contain this text."),
    ] = None,
) -> Selection:
    return Selection(rank=rank, stream=stream, attempt=attempt, grep=grep)


SelectionDep = Annotated[Selection, Depends(_selection)]
AfterQuery = Annotated[
    str | None,
    Query(min_length=1, max_length=64, description="`id` of the last line that is known."),
]


@router.get(
    "/v1/jobs/{job_id}/logs",
    operation_id="jobs_list_logs",
    response_model=LogPage,
    responses={
        200: {
            "description": "Lines: a page, or with the other media types all of them.",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/x-ndjson": {"schema": {"$ref": "#/components/schemas/LogLine"}},
            },
        }
    },
)
async def list_logs(
    job_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    selected: SelectionDep,
    request: Request,
    tail: Annotated[
        int | None, Query(ge=1, le=LIMIT_MAX, description="Only the last so many lines.")
    ] = None,
    after: AfterQuery = None,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=LIMIT_MAX,
            description=f"Lines at most; {LIMIT_DEFAULT} in a page, else all that there are.",
        ),
    ] = None,
) -> Response:
    """Return log lines of all ranks and attempts, in the order in which they came.

    A page looks through at most 8 MiB of log: with `grep` it may hold few lines, or none, and
    still have more. `text/plain` and `application/x-ndjson` give everything up to now.
    """
    if tail is not None and after is not None:
        raise BadParameter("tail", "starts at the end, `after` elsewhere: give one of them")
    start = None if after is None else parse_position(after)
    opened = await run_in_threadpool(_open, database, caller, job_id, selected, start)
    if tail is not None:
        entries = await run_in_threadpool(opened.read_tail, tail)
        return _answer_tail(request, opened, entries)
    kind = _choose_media_type(request)
    if kind != "application/json":
        render = render_text if kind == "text/plain" else opened.render_ndjson
        return StreamingResponse(_iter_all(opened, render, limit), media_type=kind)
    page = await run_in_threadpool(opened.read_page, limit or LIMIT_DEFAULT)
    return Response(page.model_dump_json(), media_type=kind)


@router.get(
    "/v1/jobs/{job_id}/logs/stream",
    operation_id="jobs_stream_logs",
    response_class=StreamingResponse,
    responses=SSE_RESPONSES,
)
async def stream_logs(
    job_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    selected: SelectionDep,
    request: Request,
    after: AfterQuery = None,
) -> StreamingResponse:
    """Stream log lines: those that are there, then those that come, until the job has ended.

    Events are `log` (data: a LogLine), then `end` (data: the state of the job). `Last-Event-ID`
    (or `after`) goes on exactly behind the line with that id.
    """
    place = request.headers.get("last-event-id") or after
    start = None if place is None else parse_position(place)
    opened = await run_in_threadpool(_open, database, caller, job_id, selected, start)

    async def read_page(position: Position | None) -> StreamPage:
        entries, end_state = await run_in_threadpool(opened.read_stream)
        events = [
            StreamEvent(id=str(entry.position), event="log", data=opened.render_line(entry))
            for entry in entries
        ]
        return StreamPage(
            events=events,
            position=opened.reader.position,
            is_end=end_state is not None,
            end_data={"state": end_state},
        )

    return stream_response(streams, logs_topic(job_id), read_page, start)


def _open(
    database: Database, caller: Caller, job_id: str, selected: Selection, start: Position | None
) -> OpenedLog:
    with database.read() as session:
        job = get_visible_job(session, caller, job_id)
        attempt_id = None
        if selected.attempt is not None:
            attempt_id = get_attempt_id(session, job.id, selected.attempt)
        numbers = map_attempt_numbers(session, job.id)
    wanted = LogFilter(
        job_id=job.id,
        rank=selected.rank,
        stream=selected.stream,
        attempt_id=attempt_id,
        grep=None if selected.grep is None else selected.grep.encode(),
    )
    return OpenedLog(database, wanted, start or Position(), numbers)


def _answer_tail(request: Request, opened: OpenedLog, entries: Sequence[Entry]) -> Response:
    kind = _choose_media_type(request)
    if kind == "text/plain":
        return Response(render_text(entries), media_type=kind)
    if kind == "application/x-ndjson":
        return Response(opened.render_ndjson(entries), media_type=kind)
    page = opened.render_page(entries, opened.reader.position, has_more=False)
    return Response(page.model_dump_json(), media_type=kind)


async def _iter_all(
    opened: OpenedLog, render: Callable[[Sequence[Entry]], bytes], limit: int | None
) -> AsyncIterator[bytes]:
    left = limit
    has_more = True
    while has_more and left != 0:
        size = _ALL_LINES if left is None else min(left, _ALL_LINES)
        entries, has_more = await run_in_threadpool(opened.read_some, size)
        left = None if left is None else left - len(entries)
        if entries:
            yield render(entries)


def _choose_media_type(request: Request) -> str:
    """Return the first media type of `Accept` that we have, JSON when there is none."""
    for part in request.headers.get("accept", "").split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in _MEDIA_TYPES:
            return kind
    return "application/json"
