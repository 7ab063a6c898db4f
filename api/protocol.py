"""HTTP on the wire: uvicorn's, with limits on what comes before the body.

The parser below keeps a head in memory until it is whole, and nobody is authenticated before that:
so a head has a size, a number of headers, and a time in which to come. Knows no route.
"""

from __future__ import annotations

import asyncio
import secrets
from http import HTTPStatus
from typing import cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.errors import BadRequest, HeadersTooLarge, render_problem

log = structlog.get_logger()

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 128
HEAD_SECONDS = 20.0


class BoundedHttp(HttpToolsProtocol):
    """Refuses heads that are too large with 431, and hangs up on those that do not end."""

    # Set again for each connection and head; here so that the one who answers may always ask.
    _is_in_head = True
    _is_too_large = False
    _head_bytes = 0
    _unseen_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base has it
        """Expect the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._expect_no_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; most requests are whole with their first bytes, and need no timer."""
        # Heads and trailers that are not whole yet: the parser keeps them, and says nothing.
        self._unseen_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unseen_bytes > HEAD_BYTES_MAX:
            self._is_too_large = True
            self.send_400_response("")
        elif not self._is_in_head:
            self._expect_no_head()
        elif self._deadline is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the path, which may come in parts."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, of the head or of the trailers."""
        self._count(len(name) + len(value))
        if len(self.headers) >= HEADERS_MAX:
            self._refuse_head()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request begin."""
        self._is_in_head = False
        self._unseen_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body; it is limited by the route that reads it."""
        self._unseen_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next head."""
        self._unseen_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with the head as a problem document, and hang up."""
        if not self._is_answering or not self.cycle.response_started:
            self.transport.write(_render_refusal(is_too_large=self._is_too_large))
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _count(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._is_too_large = True
        raise ValueError("the head is too large")  # ends the parser, which is then answered for

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _expect_no_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        # An answer that is on its way to a request before this one is not cut off.
        if self._is_answering:
            self._expect_head()
        else:
            self.transport.close()


def _render_refusal(*, is_too_large: bool) -> bytes:
    request_id = f"req-{secrets.token_hex(8)}"
    error = (
        HeadersTooLarge(
            f"path and headers may have {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers: send less"
        )
        if is_too_large
        else BadRequest("the bytes are not an HTTP request: use an HTTP/1.1 client")
    )
    answer = render_problem(error, request_id)
    log.info("request refused", status=answer.status_code, request_id=request_id)
    status = HTTPStatus(answer.status_code)
    answer.headers.update({"x-request-id": request_id, "connection": "close"})
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body)
