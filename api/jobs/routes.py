"""Jobs over HTTP: submit, validate, list, read and wait, edit, delete."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import ConfigDep, CurrentCaller, DatabaseDep, MemberCaller, PageDep, StreamsDep
from api.errors import ErrorItem, problem_responses
from api.idempotency import Answer, IdempotencyKey, read_ticket, write_once
from api.jobs import schemas
from api.jobs.desk import DeskDep
from api.jobs.documentation import CREATED, DRAFT_BODY, NOT_MODIFIED, SHOWN, SPEC_BODY
from api.jobs.edit import edit_job, remove_job
from api.jobs.listing import list_jobs, read_filter
from api.jobs.representation import render_job, represent_jobs
from api.jobs.submit import submit_job, validate_job
from api.long_polls import AfterVersion, WaitSeconds, await_newer
from api.pages import cut_page, read_after
from api.preconditions import IfMatch, IfNoneMatch, is_unchanged
from api.storage_access import StorageDep
from api.strict import StrictRoute, check_json_type, parse_json, read_body
from api.visibility import get_visible_job
from models import Database
from models.queries.jobs import job_topic
from scheduler.core.errors import InvalidSpec
from scheduler.core.spec_rules import World

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)


@router.post(
    "",
    operation_id="jobs_create",
    response_class=Response,
    status_code=201,
    responses={**CREATED, **problem_responses(422)},
    openapi_extra=SPEC_BODY,
)
async def create(
    request: Request,
    caller: MemberCaller,
    desk: DeskDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a job.

    It is stored before the answer leaves. With an `Idempotency-Key` the same request may be sent
    again: there will be one job, and the same answer.
    """
    body = await read_body(request)
    check_json_type(request)

    def work() -> Response:
        document, now = parse_json(body), datetime.now(UTC)
        ticket = read_ticket(request, caller, idempotency_key, document)
        return submit_job(desk, caller, document, ticket=ticket, now=now).render()

    return await run_in_threadpool(work)


@router.post(
    "/validate",
    operation_id="jobs_validate",
    response_model=schemas.Validation,
    responses=problem_responses(422),
    openapi_extra=DRAFT_BODY,
)
async def validate(request: Request, caller: MemberCaller, desk: DeskDep) -> schemas.Validation:
    """Say everything that submitting this spec would say, without submitting it."""
    body = await read_body(request)
    check_json_type(request)

    def work() -> schemas.Validation:
        try:
            spec = validate_job(desk, caller, parse_json(body))
        except InvalidSpec as error:
            items = [
                ErrorItem(pointer=one.pointer, code=one.code, message=one.message)
                for one in error.problems
            ]
            return schemas.Validation(valid=False, errors=items, spec=None)
        return schemas.Validation(valid=True, errors=[], spec=spec)

    return await run_in_threadpool(work)


@router.get("", operation_id="jobs_list")
def list_(
    caller: CurrentCaller,
    page: PageDep,
    database: DatabaseDep,
    config: ConfigDep,
    state: Annotated[
        str | None,
        Query(max_length=200, description="States, by comma.", examples=["running,queued"]),
    ] = None,
    label: Annotated[
        list[str],
        Query(max_length=16, description="`key:value`; several must all be there."),
    ] = [],  # noqa: B006  FastAPI copies it
    project: Annotated[str | None, Query(max_length=128, description="Name of a project.")] = None,
    name: Annotated[str | None, Query(max_length=128, description="The job's name.")] = None,
    order: Annotated[
        Literal["asc", "desc"], Query(description="`desc`: the newest job first.")
    ] = "desc",
) -> schemas.JobList:
    """List the jobs of your project; an admin's key lists those of all projects."""
    wanted = read_filter(state, label, project, name)
    list_name = f"jobs/{order}"
    after_id = read_after(config.signing_key, list_name, page)
    with database.read() as session:
        rows = list_jobs(
            session,
            caller,
            wanted,
            after_id=None if after_id is None else str(after_id),
            limit=page.limit + 1,
            is_ascending=order == "asc",
        )
        keys = [job.id for job in rows]
        shown, has_more, cursor = cut_page(config.signing_key, list_name, rows, keys, page.limit)
        data = represent_jobs(session, shown)
    return schemas.JobList(data=data, has_more=has_more, next_cursor=cursor)


@router.get(
    "/{job_id}",
    operation_id="jobs_get",
    response_class=Response,
    responses={**SHOWN, **NOT_MODIFIED},
)
async def get(
    job_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    if_none_match: IfNoneMatch = None,
    wait: WaitSeconds = 0,
    after_version: AfterVersion = None,
) -> Response:
    """Read a job; with `wait`, answer as soon as it has another version, or when time is up."""
    job = await await_newer(
        streams,
        job_topic(job_id),
        lambda: run_in_threadpool(_read, database, caller, job_id),
        after_version=after_version,
        timeout_seconds=wait,
    )
    body, etag = render_job(job)
    if is_unchanged(if_none_match, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"etag": etag})
    return Response(body, headers={"etag": etag}, media_type="application/json")


@router.patch(
    "/{job_id}",
    operation_id="jobs_update",
    response_class=Response,
    responses={**SHOWN, **problem_responses(409, 412)},
)
def update(
    job_id: str,
    patch: schemas.JobPatch,
    caller: MemberCaller,
    database: DatabaseDep,
    desk: DeskDep,
    if_match: IfMatch = None,
) -> Response:
    """Change name, priority, labels, queue or limits; with `If-Match`, only what you have read.

    A higher `limits.gpu_hours` lets a job be resumed that has used up its own.
    """
    now = datetime.now(UTC)
    # Before the transaction: a world is read in one of its own.
    world = desk.worlds.fresh() if "queue" in patch.model_fields_set else World()

    def work(session: Session) -> Answer:
        job = edit_job(session, caller, job_id, patch, world=world, if_match=if_match, now=now)
        body, etag = render_job(job)
        return Answer(status=HTTPStatus.OK, body=body, etag=etag)

    return write_once(database, None, work, now=now).render()


@router.delete(
    "/{job_id}",
    operation_id="jobs_delete",
    status_code=204,
    response_class=Response,
    responses=problem_responses(409, 412),
)
def delete(
    job_id: str,
    caller: MemberCaller,
    database: DatabaseDep,
    storage: StorageDep,
    if_match: IfMatch = None,
) -> Response:
    """Remove a finished job with its events, logs, metrics and checkpoints, for good."""
    remove_job(database, storage, caller, job_id, if_match=if_match)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _read(database: Database, caller: Caller, job_id: str) -> schemas.Job:
    with database.read() as session:
        (job,) = represent_jobs(session, [get_visible_job(session, caller, job_id)])
    return job
