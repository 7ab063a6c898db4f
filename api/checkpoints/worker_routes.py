"""Supervisors upload checkpoints: announce, send the files, commit."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.attempts.fence import Membership
from api.attempts.writing import read_as, ticket_of, write_as
from api.checkpoints.documents import render_checkpoint
from api.checkpoints.manifest import ManifestFile
from api.checkpoints.receive import (
    Announcement,
    Begun,
    begin_checkpoint,
    commit_checkpoint,
    find_missing,
    get_upload,
)
from api.checkpoints.schemas import CheckpointBegun, CheckpointIn, CheckpointOut, Upload
from api.deps import CurrentAttempt, DatabaseDep
from api.downloads import DOWNLOAD_RESPONSES, send_object
from api.errors import problem_responses
from api.storage import ObjectKey, Staged
from api.storage_access import StorageDep
from api.strict import StrictRoute
from api.uploads import read_content_length, receive
from models import Checkpoint, CheckpointFile
from scheduler.core.errors import Invalid, NotFound


class ManifestRoute(StrictRoute):
    """A route whose body may be a manifest of 10,000 files."""

    body_bytes_max = 8 * 1024 * 1024


router = APIRouter(
    prefix="/v1/attempts/{attempt_id}/checkpoints", tags=["worker"], route_class=ManifestRoute
)


class WrongBytes(Invalid):
    """The bytes are not those that the manifest names."""

    code = "wrong_bytes"


@router.post("", operation_id="attempts_begin_checkpoint", responses=problem_responses(409, 507))
async def begin(
    attempt_id: str,
    announced: CheckpointIn,
    caller: CurrentAttempt,
    storage: StorageDep,
    request: Request,
) -> CheckpointBegun:
    """Announce a checkpoint; the answer names the files that are still missing.

    The same name with the same manifest again is the same checkpoint.
    """
    manifest = Announcement(
        name=announced.name,
        step=announced.step,
        metrics=announced.metrics,
        files=[ManifestFile(each.path, each.size_bytes, each.sha256) for each in announced.files],
    )
    storage.check_room(sum(file.size_bytes for file in manifest.files))

    def change(session: Session, member: Membership, now: datetime) -> Begun:
        return begin_checkpoint(session, member, manifest, now=now)

    begun = await write_as(request, caller, change)
    if begun.is_committed:
        return CheckpointBegun(checkpoint_id=begun.checkpoint_id, state="committed", uploads=[])
    missing = await run_in_threadpool(find_missing, storage, begun.checkpoint_id, manifest.files)
    root = f"/v1/attempts/{attempt_id}/checkpoints/{begun.checkpoint_id}/files"
    uploads = [Upload(path=file.path, url=f"{root}/{quote(file.path)}") for file in missing]
    return CheckpointBegun(checkpoint_id=begun.checkpoint_id, state="uploading", uploads=uploads)


@router.put(
    "/{checkpoint_id}/files/{path:path}",
    operation_id="attempts_put_checkpoint_file",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problem_responses(409, 413, 422, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The bytes of the file, exactly as many as the manifest says.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def put_file(
    attempt_id: str,
    checkpoint_id: str,
    path: str,
    caller: CurrentAttempt,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Send one file. Sent again it does no more than once."""

    def find(session: Session, member: Membership) -> CheckpointFile:
        return get_upload(session, member, checkpoint_id, path)[1]

    file = await read_as(request, caller, find)
    announced = read_content_length(request)
    if announced is not None and announced != file.size_bytes:
        raise WrongBytes(f"the manifest says {file.size_bytes} bytes: send exactly those")

    def keep(staged: Staged) -> None:
        if staged.size_bytes != file.size_bytes:
            raise WrongBytes(f"the manifest says {file.size_bytes} bytes: send exactly those")
        if staged.sha256 != file.sha256:
            raise WrongBytes(
                "the bytes do not have the hash that the manifest says: send them again"
            )
        storage.keep(staged, ObjectKey(checkpoint_id, file.sha256))

    await receive(request, storage, keep, limit_bytes=file.size_bytes)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/{checkpoint_id}/commit",
    operation_id="attempts_commit_checkpoint",
    responses=problem_responses(409),
)
async def seal(
    attempt_id: str,
    checkpoint_id: str,
    caller: CurrentAttempt,
    database: DatabaseDep,
    storage: StorageDep,
) -> CheckpointOut:
    """Say that all files are there: from now on the checkpoint is listed, or it never is."""
    now = datetime.now(UTC)
    sealed = await run_in_threadpool(
        commit_checkpoint, database, storage, ticket_of(caller), checkpoint_id, now=now
    )
    return render_checkpoint(sealed.checkpoint, sealed.files, attempt=sealed.attempt_number)


@router.get(
    "/{checkpoint_id}/files/{path:path}",
    operation_id="attempts_get_checkpoint_file",
    response_class=Response,
    responses={**DOWNLOAD_RESPONSES, **problem_responses(409)},
)
async def get_file(
    attempt_id: str,
    checkpoint_id: str,
    path: str,
    caller: CurrentAttempt,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Return the bytes of one file of the checkpoint to resume, or of one that was made here."""

    def find(session: Session, member: Membership) -> CheckpointFile:
        checkpoint = session.get(Checkpoint, checkpoint_id)
        if checkpoint is None or (
            checkpoint.id != member.attempt.resume_checkpoint_id
            and checkpoint.attempt_id != member.attempt.id
        ):
            raise NotFound("this checkpoint")
        file = session.get(CheckpointFile, (checkpoint_id, path))
        if file is None:
            raise NotFound("this checkpoint file")
        return file

    file = await read_as(request, caller, find)
    return await send_object(
        request,
        storage,
        ObjectKey(checkpoint_id, file.sha256),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        filename=path.rpartition("/")[2],
    )
