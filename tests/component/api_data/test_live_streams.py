"""Followers of a running job: nothing is missed and nothing comes twice, over reconnects too."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from tests.component.api_data.desk import ONE, Desk, ok


class LiveServer:
    """The desk's app on a loopback port, served by a thread."""

    def __init__(self, desk: Desk) -> None:
        config = uvicorn.Config(
            desk.app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._headers = desk.admin
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def follow(self, path: str, last_id: str | None = None) -> Iterator[dict[str, str]]:
        """Yield events as they come, until the server ends the stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = dict(self._headers)
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        event: dict[str, str] = {}
        try:
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif event:
                    if "event" in event:
                        yield event
                    event = {}
        finally:
            connection.close()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def live(desk: Desk) -> Iterator[LiveServer]:
    """The desk's app on a real socket, about 50 ms."""
    server = LiveServer(desk)
    yield server
    server.stop()


def follow_with_breaks(live: LiveServer, path: str, every: int, into: list[dict[str, str]]) -> None:
    """Collect events, hanging up after every few of them and going on behind the last."""
    last_id = None
    while True:
        for count, event in enumerate(live.follow(path, last_id), start=1):
            into.append(event)
            last_id = event.get("id", last_id)
            if event["event"] == "end":
                return
            if count == every:
                break


@pytest.mark.parametrize("every", [1, 7, 10_000], ids=["each", "some", "no"])
def test_followers_that_hang_up_after_events_see_each_line_and_point_once(
    desk: Desk, live: LiveServer, every: int
) -> None:
    supervisor = desk.launch(ONE)
    job_id = supervisor.job_id
    lines: list[dict[str, str]] = []
    points: list[dict[str, str]] = []
    threads = [
        threading.Thread(
            target=follow_with_breaks, args=(live, f"/v1/jobs/{job_id}/{what}/stream", every, into)
        )
        for what, into in (("logs", lines), ("metrics", points))
    ]
    for thread in threads:
        thread.start()
    length = 0
    for step in range(40):
        length = ok(supervisor.append(f"line {step}\npart".encode(), length))["length"]
        ok(supervisor.measure(step, {"loss": [(step, float(step))]}))
    ok(supervisor.exit())
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

    seen = [json.loads(event["data"])["text"] for event in lines if event["event"] == "log"]
    assert seen == ["line 0", *(f"partline {step}" for step in range(1, 40)), "part"]
    values: list[Any] = [
        point["step"]
        for event in points
        if event["event"] == "metrics"
        for point in json.loads(event["data"])["points"]
    ]
    assert values == list(range(40))


def test_a_line_reaches_its_followers_at_once(desk: Desk, live: LiveServer) -> None:
    supervisor = desk.launch(ONE)
    arrived = threading.Event()

    def follow() -> None:
        for event in live.follow(f"/v1/jobs/{supervisor.job_id}/logs/stream"):
            if event["event"] == "log":
                arrived.set()
                return

    thread = threading.Thread(target=follow)
    thread.start()
    while desk.app.state.streams.open_streams == 0:
        time.sleep(0.005)

    ok(supervisor.append(b"hello\n", 0))

    assert arrived.wait(1.5), "the line waited for the next poll"
    thread.join(20)


def test_followers_hold_no_connection_to_the_database(desk: Desk, live: LiveServer) -> None:
    supervisor = desk.launch(ONE)
    path = f"/v1/jobs/{supervisor.job_id}/logs/stream"
    followers = [live.follow(path) for _ in range(60)]
    threads = [threading.Thread(target=lambda each=each: next(each, None)) for each in followers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while desk.app.state.streams.open_streams < 60:
        assert time.monotonic() < deadline, "not all followers were let in"
        time.sleep(0.01)

    ok(supervisor.append(b"hello\n", 0))
    ok(supervisor.exit())

    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
