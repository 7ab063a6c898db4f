"""The app behind its real web server: what only shows on a socket."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from tests.app_client import AppClient
from tests.factories import job_document
from tests.services import free_port


@dataclass(frozen=True)
class Wire:
    """A served app."""

    client: AppClient
    port: int

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    @property
    def headers(self) -> dict[str, str]:
        """The admin's credential."""
        return {"authorization": f"Bearer {self.client.admin_key}"}


@pytest.fixture
def wire(app_client: AppClient) -> Iterator[Wire]:
    """The app on a free port, in a thread."""
    port = free_port()
    config = uvicorn.Config(
        app_client.app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    _wait(lambda: server.started)
    yield Wire(app_client, port)
    app_client.streams.close()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/v1/jobs", "/docs", "/docs/assets/swagger-ui.css", "/healthz"])
def test_a_head_leaves_the_connection_usable(wire: Wire, path: str) -> None:
    connection = wire.connect()
    connection.request("GET", path, headers=wire.headers)
    got = connection.getresponse()
    body = got.read()

    connection.request("HEAD", path, headers=wire.headers)
    head = connection.getresponse()
    assert (head.status, head.read()) == (200, b"")
    connection.request("GET", "/version")
    after = connection.getresponse()

    assert head.headers["content-length"] == str(len(body))
    assert json.loads(after.read())["name"] == "trainmaster"
    connection.close()


def test_events_arrive_as_they_happen_and_a_reader_that_leaves_is_noticed(wire: Wire) -> None:
    job_id = wire.client.submit(job_document())["id"]
    streams = wire.client.streams
    connection = wire.connect()
    connection.request("GET", f"/v1/jobs/{job_id}/events/stream", headers=wire.headers)
    answer = connection.getresponse()
    lines: list[bytes] = []

    def read_until(wanted: bytes) -> None:
        while wanted not in lines:
            lines.append(answer.readline().strip())

    read_until(b"event: job.pending")
    assert streams.open_streams == 1
    asked_at = time.monotonic()
    wire.client.patch(f"/v1/jobs/{job_id}", json={"priority": 9})
    read_until(b"event: job.edited")
    took_s = time.monotonic() - asked_at
    answer.close()
    connection.close()

    assert took_s < 1.5, "the stream waited for its next look instead of the doorbell"
    _wait(lambda: streams.open_streams == 0)


def test_a_stream_that_is_only_asked_for_with_head_ends_at_once(wire: Wire) -> None:
    job_id = wire.client.submit(job_document())["id"]
    connection = wire.connect()

    connection.request("HEAD", f"/v1/jobs/{job_id}/events/stream", headers=wire.headers)
    answer = connection.getresponse()

    assert (answer.status, answer.read()) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    streams = wire.client.streams
    _wait(lambda: streams.open_streams == 0)
    connection.close()
