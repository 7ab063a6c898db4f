"""Waiting without a thread: doorbell rings wake coroutines, and followed lists become SSE.

A ring says only that there is something to look at; everybody who wakes reads the database. When
rings come from another process they are not heard here, so every wait ends after `LOOK_SECONDS`
at the latest and the reader looks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Send

from api.errors import BadParameter
from models import Doorbell

LOOK_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2000


class Streams:
    """Lets coroutines wait for topics of the doorbell."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._lock = threading.Lock()
        self._waiters: dict[str, set[_Waiter]] = {}
        self._closed = False
        self._end = doorbell.listen(self._on_ring)
        self.open_streams = 0
        self.long_polls = 0

    @property
    def is_closing(self) -> bool:
        """Whether the service is about to stop: streams end, so that connections can."""
        return self._closed

    def count(self, topic: str) -> int:
        """Return the serial of its last ring; read it before looking, give it to `wait`."""
        return self._doorbell.count(topic)

    async def wait(self, topic: str, *, since: int, timeout_seconds: float) -> bool:
        """Wait until `topic` has rung after `since`; False when time ran out."""
        if self._closed:
            return False
        waiter = _Waiter(asyncio.get_running_loop())
        with self._lock:
            self._waiters.setdefault(topic, set()).add(waiter)
        try:
            # A ring between the caller's look and the registration shows in the count.
            if self._doorbell.count(topic) > since:
                return True
            async with asyncio.timeout(min(timeout_seconds, LOOK_SECONDS)):
                await waiter.event.wait()
        except TimeoutError:
            return False
        finally:
            with self._lock:
                waiting = self._waiters[topic]
                waiting.discard(waiter)
                if not waiting:
                    del self._waiters[topic]
        return True

    @contextlib.contextmanager
    def long_poll(self) -> Iterator[None]:
        """Count a waiting request, for the metrics."""
        self.long_polls += 1
        try:
            yield
        finally:
            self.long_polls -= 1

    def close(self) -> None:
        """Wake everybody for the last time; from now on nothing waits. Any thread may call it."""
        if self._closed:
            return
        self._closed = True
        self._end()
        with self._lock:
            waiters = [waiter for topic in self._waiters.values() for waiter in topic]
        for waiter in waiters:
            waiter.wake()

    def _on_ring(self, topics: frozenset[str]) -> None:
        with self._lock:
            waiters = [waiter for topic in topics for waiter in self._waiters.get(topic, ())]
        for waiter in waiters:
            waiter.wake()


class _Waiter:
    """One waiting coroutine, to be woken from any thread."""

    __slots__ = ("event", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.event = asyncio.Event()

    def wake(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.event.set)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        id: place in the stream; what `Last-Event-ID` brings back.
        data: a JSON document, or its text.
    """

    id: str | None
    event: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """What lies after a place in a stream.

    Attributes:
        position: the place after `events`; the next read starts there.
        is_end: whether nothing can follow.
        end_data: what `event: end` carries.
    """

    events: Sequence[StreamEvent]
    position: Any
    is_end: bool
    end_data: Mapping[str, Any] = field(default_factory=dict)


ReadPage = Callable[[Any], Awaitable[StreamPage]]


def stream_response(
    streams: Streams, topic: str, read_page: ReadPage, position: Any
) -> StreamingResponse:
    """Return an SSE answer: what is there after `position`, then what comes, then `event: end`.

    Args:
        topic: rung whenever there may be more.
        read_page: reads from a position on; called again at once as long as it finds events.
    """
    return _ClosingResponse(
        _follow(streams, topic, read_page, position),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


class _ClosingResponse(StreamingResponse):
    """Ends its generator with the answer; one whose reader left would linger until collected."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()


def read_last_event_id(request: Request, after: int | None) -> int:
    """Return the number after which a stream goes on: `Last-Event-ID`, else `after`, else 0.

    Raises:
        BadParameter: the header is not one of our ids.
    """
    text = request.headers.get("last-event-id")
    if text is None:
        return after or 0
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadParameter("last-event-id", "is not an id of this stream: use one as it came")
    return int(text)


def render_event(event: StreamEvent) -> bytes:
    """Return `event` as it goes over the wire."""
    data = event.data
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    lines = [] if event.id is None else [f"id: {event.id}"]
    lines.append(f"event: {event.event}")
    # A line end inside the data would end the field; JSON never has a bare one.
    lines.extend(f"data: {line}" for line in text.split("\n"))
    return ("\n".join(lines) + "\n\n").encode()


SSE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events as they come; `event: end` is the last one.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "title": "ServerSentEvent",
                    "type": "object",
                    "description": "One event.",
                    "required": ["event", "data"],
                    "properties": {
                        "id": {
                            "type": "string",
                            "description": "`Last-Event-ID` goes on behind it.",
                        },
                        "event": {"type": "string"},
                        "data": {"type": "string", "description": "A JSON document."},
                    },
                }
            }
        },
    }
}
"""`responses=` of a route that answers with `stream_response`."""


async def _follow(
    streams: Streams, topic: str, read_page: ReadPage, position: Any
) -> AsyncIterator[bytes]:
    streams.open_streams += 1
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        said_at = time.monotonic()
        while not streams.is_closing:
            # Counted before the read: what rings after it wakes the wait below.
            since = streams.count(topic)
            page = await read_page(position)
            position = page.position
            if page.events:
                yield b"".join(render_event(event) for event in page.events)
                said_at = time.monotonic()
            if page.is_end:
                yield render_event(StreamEvent(id=None, event="end", data=page.end_data))
                return
            if page.events:
                continue
            if time.monotonic() - said_at >= HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                said_at = time.monotonic()
            await streams.wait(topic, since=since, timeout_seconds=LOOK_SECONDS)
    finally:
        streams.open_streams -= 1
