"""Server-sent events: reading them, and going on after a cut without a gap or a double.

Follows the WHATWG description of event streams; knows nothing about what the events say.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trainmaster._calls import Call, Query
from trainmaster._errors import APIConnectionError, APIError, APIResponseError
from trainmaster._transport import Patience, Transport

_SILENCE_SECONDS = 45.0  # three heartbeats of the server
_MAX_EVENT_CHARACTERS = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event; `id` is None when the event names none of its own."""

    event: str
    data: str
    id: str | None = None

    def json(self) -> Any:
        """Return the data as a document."""
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise APIResponseError(f"event {self.event} {self.id} carries no JSON") from error


def iter_server_events(pieces: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Yield the whole events of a byte stream; one that is cut off at the end is dropped."""
    name, data, size = "", list[str](), 0
    event_id: str | None = None
    for line in _iter_lines(pieces):
        size += len(line)
        if size > _MAX_EVENT_CHARACTERS:
            raise APIResponseError("an event of the stream is larger than 64 MiB")
        if not line:
            if data:
                yield ServerEvent(event=name or "message", data="\n".join(data), id=event_id)
            name, data, size, event_id = "", [], 0, None
            continue
        label, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if label == "data":
            data.append(value)
        elif label == "event":
            name = value
        elif label == "id" and "\0" not in value:
            event_id = value


def follow_events(
    transport: Transport,
    path: str,
    query: Query,
    *,
    after: str | None = None,
    outage_seconds: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[ServerEvent]:
    """Yield the events of a stream up to its `end`, over as many connections as it takes.

    Args:
        transport: the service.
        path: of the stream.
        query: its filters, sent with each connection.
        after: the id of the last event already known; None for all.
        outage_seconds: how long the service may be away at a stretch; None: as for any call.
        stopped: asked at each sign of life, and ends the stream when it says so.

    Raises:
        APIStatusError: the stream does not exist, or not for this key.
        APIConnectionError: the service was away for longer than `outage_seconds`.
    """
    seconds = transport.retry_seconds if outage_seconds is None else outage_seconds
    patience = Patience(transport, seconds)
    last_id = after
    while not stopped():
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        call = Call(
            method="GET",
            path=path,
            query=query,
            headers=headers,
            timeout_seconds=_SILENCE_SECONDS,
        )
        is_open = False
        try:
            with transport.open(call) as response:
                _check_is_stream(response.headers.get("content-type", ""), path)
                is_open = True
                for event in iter_server_events(_until(stopped, response.iter_bytes())):
                    if event.event == "end":
                        return
                    if _is_repeat(event.id, last_id):
                        continue
                    last_id = event.id or last_id
                    patience.moved()
                    yield event
            raise APIConnectionError(f"{transport.settings.url} closed the stream {path}")
        except APIError as error:
            if stopped():
                return
            if is_open:  # the outage begins now, however long the stream was quiet before
                patience.answered()
            patience.wait_after(error)


def _iter_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    buffer: list[str] = []
    ends_in_return = False
    for piece in pieces:
        text = decoder.decode(piece)
        if not text:
            continue
        if ends_in_return:
            text = text.removeprefix("\n")
        ends_in_return = text.endswith("\r")
        # Only these three end a line here; str.splitlines knows many more.
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield "".join([*buffer, line])
            buffer.clear()
        if rest:
            buffer.append(rest)
        if sum(map(len, buffer)) > _MAX_EVENT_CHARACTERS:
            raise APIResponseError("a line of the stream is longer than 64 Mi characters")


def _until(stopped: Callable[[], bool], pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stopped():
            return
        yield piece


def _check_is_stream(content_type: str, path: str) -> None:
    if not content_type.startswith("text/event-stream"):
        raise APIResponseError(f"{path} answered {content_type or 'nothing'} instead of events")


def _is_repeat(event_id: str | None, last_id: str | None) -> bool:
    """Whether the server sent again what came before: ids that are numbers only ever grow."""
    if not event_id or last_id is None:
        return False
    if event_id.isdecimal() and last_id.isdecimal():
        return int(event_id) <= int(last_id)
    return event_id == last_id
