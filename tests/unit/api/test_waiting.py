"""Coroutines that wait for the doorbell, and SSE on the wire."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from api import streams as streams_module
from api.streams import StreamEvent, Streams, render_event
from models import Doorbell


def test_a_ring_wakes_all_who_wait_for_its_topic_and_nobody_else() -> None:
    async def scenario() -> tuple[list[bool], bool]:
        doorbell = Doorbell()
        streams = Streams(doorbell)
        waiting = [
            asyncio.create_task(streams.wait("a", since=0, timeout_seconds=5)) for _ in range(3)
        ]
        other = asyncio.create_task(streams.wait("b", since=0, timeout_seconds=0.3))
        await asyncio.sleep(0)
        threading.Thread(target=doorbell.ring, args=(["a"],)).start()
        return await asyncio.gather(*waiting), await other

    assert asyncio.run(scenario()) == ([True, True, True], False)


def test_a_ring_between_the_look_and_the_wait_is_not_missed() -> None:
    async def scenario() -> bool:
        doorbell = Doorbell()
        streams = Streams(doorbell)
        since = streams.count("a")
        doorbell.ring(["a"])
        return await streams.wait("a", since=since, timeout_seconds=60)

    began = time.monotonic()
    assert asyncio.run(scenario())
    assert time.monotonic() - began < 5


def test_nobody_waits_longer_than_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "LOOK_SECONDS", 0.05)
    streams = Streams(Doorbell())

    assert not asyncio.run(streams.wait("a", since=0, timeout_seconds=60))


def test_waiters_leave_nothing_behind() -> None:
    doorbell = Doorbell()
    streams = Streams(doorbell)

    async def scenario() -> None:
        task = asyncio.create_task(streams.wait("a", since=0, timeout_seconds=5))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await streams.wait("b", since=0, timeout_seconds=0.01)

    asyncio.run(scenario())

    assert streams._waiters == {}
    doorbell.ring(["a", "b"])  # the loop is closed: nothing to wake, nothing to break


def test_closing_wakes_everybody_and_lets_nobody_wait_again() -> None:
    async def scenario() -> bool:
        streams = Streams(Doorbell())
        task = asyncio.create_task(streams.wait("a", since=0, timeout_seconds=60))
        await asyncio.sleep(0)
        threading.Thread(target=streams.close).start()
        await task
        return await streams.wait("a", since=0, timeout_seconds=60)

    began = time.monotonic()
    assert not asyncio.run(scenario())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (StreamEvent(id="7", event="x", data={"a": "ä"}), 'id: 7\nevent: x\ndata: {"a": "ä"}\n\n'),
        (StreamEvent(id=None, event="end", data={}), "event: end\ndata: {}\n\n"),
        (StreamEvent(id=None, event="x", data="a\nb"), "event: x\ndata: a\ndata: b\n\n"),
        (StreamEvent(id=None, event="x", data=["a\nb"]), 'event: x\ndata: ["a\\nb"]\n\n'),
    ],
)
def test_events_on_the_wire(event: StreamEvent, wire: str) -> None:
    assert render_event(event).decode() == wire
