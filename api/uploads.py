"""Request bodies of any size onto disk, a block at a time. Knows no row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.errors import BadRequest
from api.storage import LocalStorage, Staged
from scheduler.core.errors import TooLarge

T = TypeVar("T")

# One hop into a thread for each: much less than this and the hops cost more than the writing.
BLOCK_BYTES = 1024 * 1024


def read_content_length(request: Request) -> int | None:
    """Return how many bytes the body is announced to have, None when it does not say.

    Raises:
        BadRequest: it says no number.
    """
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest("content-length is not a number: leave it to your HTTP library")
    return int(text)


async def receive(
    request: Request,
    storage: LocalStorage,
    finish: Callable[[Staged], T],
    *,
    limit_bytes: int,
) -> T:
    """Stage the whole body, then return what `finish` makes of it, in a thread.

    What `finish` does not keep is discarded, whatever happens.

    Raises:
        TooLarge: there are more than `limit_bytes`; no more than that is written.
        BadRequest: the sender went away before the end.
        OutOfStorage: the disk is full.
    """
    announced = read_content_length(request)
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    incoming = _Incoming(storage, announced or 0)
    try:
        block = bytearray()
        async for chunk in request.stream():
            block += chunk
            if incoming.size_bytes + len(block) > limit_bytes:
                raise _too_large(limit_bytes)
            if len(block) >= BLOCK_BYTES:
                await run_in_threadpool(incoming.write, bytes(block))
                block.clear()
        return await run_in_threadpool(incoming.end, bytes(block), finish)
    except ClientDisconnect:
        raise BadRequest("the body ended before its announced length: send it again") from None
    finally:
        incoming.discard()


class _Incoming:
    """Staged bytes, opened with the first block so that small bodies cost one hop."""

    def __init__(self, storage: LocalStorage, expected_bytes: int) -> None:
        self.size_bytes = 0
        self._storage, self._expected_bytes = storage, expected_bytes
        self._staged: Staged | None = None

    def write(self, block: bytes) -> Staged:
        if self._staged is None:
            self._staged = self._storage.stage(expected_bytes=self._expected_bytes)
        self._staged.write(block)
        self.size_bytes += len(block)
        return self._staged

    def end(self, block: bytes, finish: Callable[[Staged], T]) -> T:
        return finish(self.write(block))

    def discard(self) -> None:
        if self._staged is not None:
            self._staged.discard()


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body may have {limit_bytes} bytes: send less")
