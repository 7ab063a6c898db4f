"""Stored bytes as answers: ranges, validators, and headers that keep browsers from running them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.errors import ProblemDocument, RangeNotSatisfiable
from api.ranges import ByteRange, Unsatisfiable, matches_etag, parse_range
from api.storage import LocalStorage, ObjectKey
from scheduler.core.errors import Conflict

_BLOCK_BYTES = 1024 * 1024


class DamagedBytes(Conflict):
    """What lies on disk is not what was stored."""

    code = "damaged_bytes"


DOWNLOAD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {
        "description": "The range that was asked for.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "The bytes are those that `If-None-Match` names."},
    409: {"model": ProblemDocument, "description": "Conflict"},
    416: {"model": ProblemDocument, "description": "Range Not Satisfiable"},
}
"""`responses=` of a route that answers with `send_object`."""


async def send_object(
    request: Request,
    storage: LocalStorage,
    key: ObjectKey,
    *,
    size_bytes: int,
    sha256: str,
    filename: str,
) -> Response:
    """Return the answer to a GET or HEAD of stored bytes: whole, a range, or not modified.

    Raises:
        NotFound: the bytes are gone.
        DamagedBytes: there are more or fewer of them than there should be.
        RangeNotSatisfiable: none of the bytes that are asked for exist.
    """
    etag = f'"{sha256}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "cache-control": "private, no-cache",
        "content-disposition": attachment(filename),
        "repr-digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "x-content-type-options": "nosniff",
    }
    if matches_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    wanted = _read_range(request.headers, etag, size_bytes)
    status = HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT
    if wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size_bytes}"
    wanted = wanted or ByteRange(0, size_bytes)
    headers["content-length"] = str(wanted.length)
    headers["content-type"] = "application/octet-stream"
    if request.method == "HEAD":
        await run_in_threadpool(_check_size, storage, key, size_bytes)
        return Response(None, status, headers)
    if wanted.length <= _BLOCK_BYTES:
        data = await run_in_threadpool(_read_whole, storage, key, wanted, size_bytes)
        return Response(data, status, headers)
    file = await run_in_threadpool(_open, storage, key, size_bytes)
    return StreamingResponse(_stream(file, wanted), status, headers)


def attachment(filename: str) -> str:
    """Return the `Content-Disposition` that saves under `filename`, whatever is in that name."""
    plain = "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\%' else "_"
        for char in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def iter_blocks(file: BinaryIO, wanted: ByteRange) -> Iterator[bytes]:
    """Yield the bytes of a range, a block at a time; ends early when the file does."""
    file.seek(wanted.start)
    left = wanted.length
    while left:
        data = file.read(min(left, _BLOCK_BYTES))
        if not data:
            return
        left -= len(data)
        yield data


def _read_range(headers: Mapping[str, str], etag: str, size_bytes: int) -> ByteRange | None:
    condition = headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        return None  # another version, or a date, which says too little
    try:
        return parse_range(headers.get("range"), size_bytes)
    except Unsatisfiable:
        message = f"there are {size_bytes} bytes: ask for some of those"
        raise RangeNotSatisfiable(message, members={"size_bytes": size_bytes}) from None


def _check_size(storage: LocalStorage, key: ObjectKey, size_bytes: int) -> None:
    _open(storage, key, size_bytes).close()


def _open(storage: LocalStorage, key: ObjectKey, size_bytes: int) -> BinaryIO:
    file = storage.open(key)
    if file.seek(0, 2) != size_bytes:
        file.close()
        raise DamagedBytes("the stored bytes are damaged: use another checkpoint, or upload again")
    return file


def _read_whole(storage: LocalStorage, key: ObjectKey, wanted: ByteRange, size_bytes: int) -> bytes:
    with _open(storage, key, size_bytes) as file:
        return b"".join(iter_blocks(file, wanted))


async def _stream(file: BinaryIO, wanted: ByteRange) -> AsyncIterator[bytes]:
    blocks = iter_blocks(file, wanted)
    try:
        while data := await run_in_threadpool(next, blocks, b""):
            yield data
    finally:
        file.close()
