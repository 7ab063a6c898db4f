"""What a job has measured, for its users: summaries, series, and points as they come."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api import shapes
from api.attempts.naming import get_attempt_id, map_attempt_numbers
from api.deps import CurrentCaller, DatabaseDep, ReadSession, StreamsDep
from api.metrics.batch import KEY_LENGTH_MAX
from api.metrics.documents import dump_series, render_piece, render_summary
from api.metrics.follow import CURSOR_CHARS_MAX, PointFollower
from api.metrics.sampling import downsample
from api.metrics.schemas import MetricList, MetricSeries
from api.metrics.series import SeriesFilter, find_rank, list_summaries, read_series
from api.metrics.store import metrics_topic
from api.streams import SSE_RESPONSES, StreamEvent, StreamPage, stream_response
from api.strict import StrictRoute
from api.visibility import get_visible_job
from models import Database, Job
from scheduler.core.errors import NotFound

router = APIRouter(tags=["metrics"], route_class=StrictRoute)

POINTS_MAX = 10_000

KeyQuery = Annotated[
    str | None,
    Query(min_length=1, max_length=KEY_LENGTH_MAX, description="The metric, such as `train/loss`."),
]
RankQuery = Annotated[int | None, Query(ge=0, le=999_999, description="Only of this rank.")]


@router.get(
    "/v1/jobs/{job_id}/metrics",
    operation_id="jobs_get_metrics",
    response_model=MetricSeries | MetricList,
)
def get_metrics(
    job_id: str,
    caller: CurrentCaller,
    session: ReadSession,
    key: KeyQuery = None,
    rank: RankQuery = None,
    attempt: Annotated[
        str | None,
        Query(min_length=1, max_length=40, description="Only of this attempt: number or id."),
    ] = None,
    points: Annotated[
        int, Query(ge=1, le=POINTS_MAX, description="Points at most; least and greatest stay.")
    ] = POINTS_MAX,
) -> Response:
    """Return one series with `key`, else a summary of each metric.

    A series is that of the lowest rank that has one, unless `rank` is given. When an attempt went
    on from a checkpoint, the steps that it did again are shown once, as it did them; `attempt`
    shows one attempt as it was. Longer series are down-sampled: of each stretch the least and the
    greatest value stay, and the first and the last point always. A series that nobody has logged
    is empty while the job may still log it, and not found when it has ended.
    """
    job = get_visible_job(session, caller, job_id)
    attempt_id = None if attempt is None else get_attempt_id(session, job.id, attempt)
    wanted = SeriesFilter(job_id=job.id, key=key, rank=rank, attempt_id=attempt_id)
    if key is None:
        summaries = [render_summary(each) for each in list_summaries(session, wanted)]
        page = MetricList(data=summaries, has_more=False, next_cursor=None)
        return Response(page.model_dump_json(), media_type="application/json")
    number = None
    if attempt_id is not None:
        number = map_attempt_numbers(session, job.id)[attempt_id]
    found = rank if rank is not None else find_rank(session, wanted) or 0
    wanted = SeriesFilter(job_id=job.id, key=key, rank=found, attempt_id=attempt_id)
    series = read_series(session, wanted)
    if len(series) == 0 and job.is_terminal:
        raise NotFound("this metric (the same path without `key` lists those that there are)")
    body = dump_series(key, found, number, len(series), downsample(series, points))
    return Response(body, media_type="application/json")


@router.get(
    "/v1/jobs/{job_id}/metrics/stream",
    operation_id="jobs_stream_metrics",
    response_class=StreamingResponse,
    responses=SSE_RESPONSES,
)
async def stream_metrics(
    job_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    request: Request,
    key: KeyQuery = None,
    rank: RankQuery = None,
    after: Annotated[
        str | None,
        Query(
            max_length=CURSOR_CHARS_MAX,
            pattern=shapes.CURSOR,
            description="`id` of the last event that is known.",
        ),
    ] = None,
) -> StreamingResponse:
    """Stream the points of all ranks and attempts as they are stored, until the job has ended.

    Events are `metrics` (data: `{"points": […]}`), then `end` (data: the state of the job).
    `Last-Event-ID` (or `after`) goes on exactly behind the event with that id. Nothing is left out
    here: what an attempt does again comes again, with its number.
    """
    place = request.headers.get("last-event-id") or after

    def visible() -> None:
        with database.read() as session:
            get_visible_job(session, caller, job_id)

    await run_in_threadpool(visible)
    wanted = SeriesFilter(job_id=job_id, key=key, rank=rank)
    follower = _Follower(database, wanted, place)

    async def read_page(_position: object) -> StreamPage:
        return await run_in_threadpool(follower.read_page)

    return stream_response(streams, metrics_topic(job_id), read_page, None)


class _Follower:
    """Reads pages of a stream of points, and knows the numbers of the attempts."""

    def __init__(self, database: Database, wanted: SeriesFilter, cursor: str | None) -> None:
        self._database, self._wanted = database, wanted
        self._points = PointFollower(wanted, cursor)
        self._numbers: dict[str, int] = {}

    def read_page(self) -> StreamPage:
        with self._database.read() as session:
            # The job first: one that is over gets no more points, so what follows is all.
            job = session.get(Job, self._wanted.job_id)
            pieces = self._points.read(session)
            if any(piece.attempt_id not in self._numbers for piece in pieces):
                self._numbers = map_attempt_numbers(session, self._wanted.job_id)
        points: list[dict[str, Any]] = [
            point for piece in pieces for point in render_piece(piece, self._numbers)
        ]
        cursor = self._points.cursor
        events = [StreamEvent(id=cursor, event="metrics", data={"points": points})]
        is_over = job is None or job.is_terminal
        return StreamPage(
            events=events if points else [],
            position=cursor,
            is_end=is_over and not points,
            end_data={"state": "deleted" if job is None else job.state.value},
        )
