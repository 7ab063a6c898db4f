"""Code bundles and inputs: brought in as a raw body, read back, removed."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import (
    ConfigDep,
    CurrentCaller,
    DatabaseDep,
    MemberCaller,
    PageDep,
    ReadSession,
)
from api.downloads import DOWNLOAD_RESPONSES, send_object
from api.errors import BadParameter, problem_responses
from api.files.removal import delete_file
from api.files.schemas import FileList, FileOut, Purpose
from api.idempotency import Answer, IdempotencyKey, read_ticket, write_once
from api.pages import cut_page, read_after
from api.storage import ObjectKey, Staged
from api.storage_access import StorageDep
from api.strict import StrictRoute
from api.uploads import receive
from models import File, new_id
from scheduler.core.errors import NotFound, ServiceError

router = APIRouter(tags=["files"], route_class=StrictRoute)

BYTES_MAX: dict[str, int] = {"code": 100 * 1024**2, "input": 50 * 1024**3}
FILENAME_LENGTH_MAX = 255


@router.post(
    "/v1/files",
    operation_id="files_create",
    status_code=HTTPStatus.CREATED,
    response_model=FileOut,
    responses=problem_responses(413, 422, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The bytes of the file: at most 100 MiB of code, 50 GiB of input.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def create(
    caller: MemberCaller,
    database: DatabaseDep,
    storage: StorageDep,
    request: Request,
    filename: Annotated[
        str, Query(min_length=1, max_length=FILENAME_LENGTH_MAX, description="Its name.")
    ],
    purpose: Annotated[Purpose, Query(description="What it is for.")] = "code",
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a file: the body is its bytes, as they are."""
    is_plain = filename.isprintable() and not {"/", "\\"} & set(filename)
    if not is_plain or filename in {".", ".."}:
        raise BadParameter("filename", "is a plain name, without slashes and control characters")

    def keep(staged: Staged) -> Answer:
        said = [filename, purpose, staged.sha256]
        ticket = read_ticket(request, caller, idempotency_key, said)
        file = File(
            id=new_id("file"),
            project_id=caller.project_id,
            filename=filename,
            purpose=purpose,
            size_bytes=staged.size_bytes,
            sha256=staged.sha256,
            created_by=caller.key_id,
            created_at=datetime.now(UTC),
        )
        # The bytes first: a row without bytes never exists, bytes without a row are swept.
        storage.keep(staged, ObjectKey(file.id))

        def add(session: Session) -> Answer:
            session.add(file)
            body = _render(file).model_dump_json().encode()
            return Answer(status=HTTPStatus.CREATED, body=body, location=f"/v1/files/{file.id}")

        try:
            answer = write_once(database, ticket, add, now=file.created_at)
        except ServiceError:
            storage.delete(file.id)  # refused, so there is no row; other errors leave that open
            raise
        if answer.is_replayed:
            storage.delete(file.id)
        return answer

    answer = await receive(request, storage, keep, limit_bytes=BYTES_MAX[purpose])
    return answer.render()


@router.get("/v1/files", operation_id="files_list")
def list_files(
    caller: CurrentCaller, session: ReadSession, config: ConfigDep, page: PageDep
) -> FileList:
    """Return the files of your project, newest first."""
    list_name = f"files:{caller.project_id}"
    statement = select(File).where(File.project_id == caller.project_id).order_by(File.id.desc())
    after = read_after(config.signing_key, list_name, page)
    if after is not None:
        statement = statement.where(File.id < str(after))
    rows = session.scalars(statement.limit(page.limit + 1)).all()
    keys = [file.id for file in rows]
    shown, has_more, cursor = cut_page(config.signing_key, list_name, rows, keys, page.limit)
    return FileList(data=[_render(file) for file in shown], has_more=has_more, next_cursor=cursor)


@router.get("/v1/files/{file_id}", operation_id="files_get")
def get(file_id: str, caller: CurrentCaller, session: ReadSession) -> FileOut:
    """Return what is known of a file."""
    return _render(_get_visible(session, caller, file_id))


@router.head("/v1/files/{file_id}/content", include_in_schema=False)
@router.get(
    "/v1/files/{file_id}/content",
    operation_id="files_get_content",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
async def get_content(
    file_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Return the bytes of a file, or a range of them."""

    def find() -> File:
        with database.read() as session:
            return _get_visible(session, caller, file_id)

    file = await run_in_threadpool(find)
    return await send_object(
        request,
        storage,
        ObjectKey(file.id),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        filename=file.filename,
    )


@router.delete(
    "/v1/files/{file_id}",
    operation_id="files_delete",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problem_responses(409),
)
async def delete(
    file_id: str, caller: MemberCaller, database: DatabaseDep, storage: StorageDep
) -> Response:
    """Remove a file. Not while a job that has not ended needs it."""

    def remove() -> None:
        with database.write() as session:
            delete_file(session, _get_visible(session, caller, file_id))
        storage.delete(file_id)

    await run_in_threadpool(remove)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _get_visible(session: Session, caller: Caller, file_id: str) -> File:
    file = session.get(File, file_id)
    if file is None or not caller.may_see(file.project_id):
        raise NotFound("this file")
    return file


def _render(file: File) -> FileOut:
    return FileOut(
        id=file.id,
        filename=file.filename,
        purpose=file.purpose,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        content_url=f"/v1/files/{file.id}/content",
        created_at=file.created_at,
    )
