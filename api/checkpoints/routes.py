"""Checkpoints for users: look, download, export, pin, verify, delete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.attempts.naming import map_attempt_numbers
from api.auth.callers import Caller
from api.checkpoints.archive import iter_archive, measure_archive
from api.checkpoints.care import (
    delete_checkpoint,
    get_visible_checkpoint,
    set_pinned,
    verify_checkpoint,
)
from api.checkpoints.documents import render_checkpoint
from api.checkpoints.export import plan_export
from api.checkpoints.receive import list_files
from api.checkpoints.schemas import CheckpointList, CheckpointOut, ExportRequest, Verification
from api.deps import (
    ConfigDep,
    CurrentCaller,
    DatabaseDep,
    MemberCaller,
    PageDep,
    ReadSession,
)
from api.downloads import DOWNLOAD_RESPONSES, attachment, send_object
from api.errors import problem_responses
from api.jobs.actions import TicketDep
from api.jobs.desk import DeskDep
from api.jobs.documentation import CREATED
from api.jobs.submit import submit_job
from api.pages import cut_page, read_after
from api.ranges import matches_etag
from api.storage import ObjectKey
from api.storage_access import StorageDep
from api.strict import StrictRoute
from api.visibility import get_visible_job
from models import Checkpoint, CheckpointFile, Database
from models.queries.checkpoints import select_committed
from scheduler.core.errors import NotFound

router = APIRouter(tags=["checkpoints"], route_class=StrictRoute)


@router.get("/v1/jobs/{job_id}/checkpoints", operation_id="jobs_list_checkpoints")
def list_checkpoints(
    job_id: str, caller: CurrentCaller, session: ReadSession, config: ConfigDep, page: PageDep
) -> CheckpointList:
    """Return the checkpoints of a job, newest first. What is listed is whole."""
    job = get_visible_job(session, caller, job_id)
    list_name = f"checkpoints:{job.id}"
    after = read_after(config.signing_key, list_name, page)
    # Retention keeps few, so the order (attempt, then step) needs no cursor of its own.
    rows = session.scalars(select_committed(job.id)).all()
    if after is not None:
        ids = [row.id for row in rows]
        rows = rows[ids.index(str(after)) + 1 :] if after in ids else []
    shown, has_more, cursor = cut_page(
        config.signing_key, list_name, rows, [row.id for row in rows], page.limit
    )
    return CheckpointList(
        data=_render(session, shown, job.id), has_more=has_more, next_cursor=cursor
    )


@router.get("/v1/checkpoints/{checkpoint_id}", operation_id="checkpoints_get")
def get(checkpoint_id: str, caller: CurrentCaller, session: ReadSession) -> CheckpointOut:
    """Return a checkpoint with its files."""
    checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
    return _render(session, [checkpoint], checkpoint.job_id)[0]


@router.head("/v1/checkpoints/{checkpoint_id}/files/{path:path}", include_in_schema=False)
@router.get(
    "/v1/checkpoints/{checkpoint_id}/files/{path:path}",
    operation_id="checkpoints_get_file",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
async def get_file(
    checkpoint_id: str,
    path: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Return the bytes of one file, or a range of them."""

    def find() -> CheckpointFile:
        with database.read() as session:
            checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
            file = session.get(CheckpointFile, (checkpoint.id, path))
        if file is None:
            raise NotFound("this file of the checkpoint")
        return file

    file = await run_in_threadpool(find)
    return await send_object(
        request,
        storage,
        ObjectKey(checkpoint_id, file.sha256),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        filename=path.rpartition("/")[2],
    )


@router.head("/v1/checkpoints/{checkpoint_id}/archive", include_in_schema=False)
@router.get(
    "/v1/checkpoints/{checkpoint_id}/archive",
    operation_id="checkpoints_get_archive",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A tar of all files, below a folder that is named after the step.",
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The archive is the one that `If-None-Match` names."},
    },
)
async def get_archive(
    checkpoint_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Return all files of a checkpoint as one tar, streamed."""
    checkpoint, files = await run_in_threadpool(_load, database, caller, checkpoint_id)
    folder = f"step-{checkpoint.step}"
    made_at = checkpoint.committed_at or checkpoint.created_at
    etag = _archive_etag(files)
    headers = {
        "etag": etag,
        "accept-ranges": "none",
        "cache-control": "private, no-cache",
        "content-disposition": attachment(f"{checkpoint_id}-{folder}.tar"),
    }
    if matches_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers["content-length"] = str(measure_archive(files, folder, made_at))
    if request.method == "HEAD":
        return Response(None, HTTPStatus.OK, headers, "application/x-tar")
    blocks: Iterator[bytes] = iter_archive(storage, checkpoint_id, files, folder, made_at)
    return StreamingResponse(blocks, HTTPStatus.OK, headers, "application/x-tar")


@router.post("/v1/checkpoints/{checkpoint_id}/pin", operation_id="checkpoints_pin")
async def pin(checkpoint_id: str, caller: MemberCaller, database: DatabaseDep) -> CheckpointOut:
    """Keep a checkpoint, whatever the job's policy says."""
    return await run_in_threadpool(_pin, database, caller, checkpoint_id, is_pinned=True)


@router.post("/v1/checkpoints/{checkpoint_id}/unpin", operation_id="checkpoints_unpin")
async def unpin(checkpoint_id: str, caller: MemberCaller, database: DatabaseDep) -> CheckpointOut:
    """Leave a checkpoint to the job's policy again, which looks with the next one."""
    return await run_in_threadpool(_pin, database, caller, checkpoint_id, is_pinned=False)


@router.post("/v1/checkpoints/{checkpoint_id}/verify", operation_id="checkpoints_verify")
async def verify(
    checkpoint_id: str, caller: MemberCaller, database: DatabaseDep, storage: StorageDep
) -> Verification:
    """Hash every file again. A damaged checkpoint is no longer listed or resumed from."""
    damaged = await run_in_threadpool(
        verify_checkpoint, database, storage, caller, checkpoint_id, now=datetime.now(UTC)
    )
    checkpoint, files = await run_in_threadpool(_load, database, caller, checkpoint_id)
    return Verification(
        intact=not damaged,
        damaged_paths=damaged,
        num_files=len(files),
        size_bytes=checkpoint.size_bytes,
        state=checkpoint.state.value,
    )


@router.post(
    "/v1/checkpoints/{checkpoint_id}/export",
    operation_id="checkpoints_export",
    response_class=Response,
    status_code=HTTPStatus.CREATED,
    responses={**CREATED, **problem_responses(409)},
)
async def export(
    checkpoint_id: str,
    caller: MemberCaller,
    desk: DeskDep,
    ticket: TicketDep,
    body: ExportRequest | None = None,
) -> Response:
    """Submit a job that writes all weights into one safetensors file, its own checkpoint."""

    def work() -> Response:
        with desk.database.read() as session:
            document = plan_export(session, caller, checkpoint_id, body or ExportRequest())
        return submit_job(desk, caller, document, ticket=ticket, now=datetime.now(UTC)).render()

    return await run_in_threadpool(work)


@router.delete(
    "/v1/checkpoints/{checkpoint_id}",
    operation_id="checkpoints_delete",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problem_responses(409),
)
async def delete(
    checkpoint_id: str, caller: MemberCaller, database: DatabaseDep, storage: StorageDep
) -> Response:
    """Remove a checkpoint. Not one that is pinned, resumed from, or the newest of a live job."""
    await run_in_threadpool(delete_checkpoint, database, storage, caller, checkpoint_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _pin(
    database: Database, caller: Caller, checkpoint_id: str, *, is_pinned: bool
) -> CheckpointOut:
    set_pinned(database, caller, checkpoint_id, is_pinned=is_pinned)
    with database.read() as session:
        checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
        return _render(session, [checkpoint], checkpoint.job_id)[0]


def _load(
    database: Database, caller: Caller, checkpoint_id: str
) -> tuple[Checkpoint, Sequence[CheckpointFile]]:
    with database.read() as session:
        checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
        return checkpoint, list_files(session, checkpoint.id)


def _render(
    session: Session, checkpoints: Sequence[Checkpoint], job_id: str
) -> list[CheckpointOut]:
    numbers = map_attempt_numbers(session, job_id)
    statement = (
        select(CheckpointFile)
        .where(CheckpointFile.checkpoint_id.in_([each.id for each in checkpoints]))
        .order_by(CheckpointFile.path)
    )
    files: dict[str, list[CheckpointFile]] = {}
    for file in session.scalars(statement):
        files.setdefault(file.checkpoint_id, []).append(file)
    return [
        render_checkpoint(each, files.get(each.id, []), attempt=numbers.get(each.attempt_id, 0))
        for each in checkpoints
    ]


def _archive_etag(files: Sequence[CheckpointFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.sha256}\n".encode())
    return f'"tar-{digest.hexdigest()}"'
