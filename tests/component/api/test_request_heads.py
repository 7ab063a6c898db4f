"""What comes before a body is bounded: in bytes, in headers, in time."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from api import protocol
from api.protocol import HEAD_BYTES_MAX, HEADERS_MAX, BoundedHttp

GOOD = b"GET /healthz HTTP/1.1\r\nhost: here\r\n"


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("fine")(scope, receive, send)


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """A server with the protocol on a port of its own."""
    config = uvicorn.Config(_app, http=BoundedHttp, lifespan="off", log_config=None)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(10)


def _ask(address: tuple[str, int], *parts: bytes) -> tuple[int, bytes]:
    """Return the status and all that came until the server hung up."""
    with socket.create_connection(address, timeout=10) as connection:
        came = b""
        try:
            for part in parts:
                connection.sendall(part)
        except ConnectionError:
            pass  # refused before the end; the answer may still be there
        try:
            while some := connection.recv(65536):
                came += some
        except ConnectionResetError:
            pass
    return int(came.split(b" ", 2)[1]) if came else 0, came


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([GOOD, b"x: " + b"a" * 9 * HEAD_BYTES_MAX], id="one header without an end"),
        pytest.param([GOOD, b"x: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n"], id="a long header"),
        pytest.param([GOOD, b"x: 1\r\n" * HEADERS_MAX + b"\r\n"], id="many headers"),
        pytest.param([GOOD] + [b"x: " + b"a" * 9000 + b"\r\n"] * 8, id="in parts"),
        pytest.param([b"GET /", b"a" * 9 * HEAD_BYTES_MAX], id="a long path"),
        pytest.param(
            [
                GOOD.replace(b"GET", b"PUT") + b"transfer-encoding: chunked\r\n\r\n0\r\n",
                b"x: " + b"a" * 9 * HEAD_BYTES_MAX,
            ],
            id="trailers",
        ),
    ],
)
def test_a_head_that_is_too_large_is_refused(address: tuple[str, int], parts: list[bytes]) -> None:
    status, came = _ask(address, *parts)

    head, _, body = came.partition(b"\r\n\r\n")
    assert status == 431
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["code"] == "headers_too_large"


def test_bytes_that_are_no_http_are_answered_with_a_problem(address: tuple[str, int]) -> None:
    status, came = _ask(address, b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    assert status == 400
    assert json.loads(came.partition(b"\r\n\r\n")[2])["code"] == "bad_request"


def test_large_bodies_and_many_requests_on_one_connection_are_no_heads(
    address: tuple[str, int],
) -> None:
    size = 3 * HEAD_BYTES_MAX
    upload = GOOD.replace(b"GET", b"PUT") + b"content-length: %d\r\n\r\n" % size + b"b" * size

    status, came = _ask(address, upload, upload, GOOD + b"connection: close\r\n\r\n")

    assert status == 200
    assert came.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing comes"),
        pytest.param([GOOD], id="a head without an end"),
        pytest.param([GOOD + b"\r\n", GOOD], id="the second of a connection"),
    ],
)
def test_a_head_that_does_not_end_is_hung_up_on(
    address: tuple[str, int], parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)

    _, came = _ask(address, *parts)

    assert came.count(b"HTTP/1.1 200") == max(0, len(parts) - 1)
