"""The history of a job: pages, and a stream without gap or double."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api import streams as streams_module
from tests.app_client import AppClient
from tests.factories import job_document

EventTuple = tuple[str | None, str, Any]


def _parse(text: str) -> Iterator[EventTuple]:
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name:
                fields[name] = fields[name] + "\n" + value if name in fields else value
        if "event" in fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])


def _edit(client: AppClient, job_id: str, times: int) -> None:
    for number in range(times):
        client.patch(f"/v1/jobs/{job_id}", json={"priority": number % 2})


def _later(do: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        time.sleep(0.3)  # the stream has to be open; the test holds with any other time, too
        do()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_events_come_in_pages_in_order(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]
    _edit(app_client, job_id, 5)

    first = app_client.get(f"/v1/jobs/{job_id}/events?limit=4").json()
    second = app_client.get(f"/v1/jobs/{job_id}/events?limit=4&after={first['next_cursor']}").json()

    assert [event["seq"] for event in first["data"] + second["data"]] == [1, 2, 3, 4, 5, 6]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert first["data"][1]["data"]["priority"] == 0


def test_the_stream_of_an_ended_job_is_its_history_and_the_end(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]
    _edit(app_client, job_id, 210)  # more than one read
    app_client.post(f"/v1/jobs/{job_id}/cancel")

    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream")

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: ")
    *events, (end_id, end, data) = _parse(answer.text)
    assert [int(event_id or 0) for event_id, _, _ in events] == list(range(1, 213))
    assert [kind for _, kind, _ in events][-1] == "job.cancelled"
    assert (end_id, end, data["state"], data["version"]) == (None, "end", "cancelled", 212)


@pytest.mark.parametrize(
    ("query", "headers", "ids"),
    [
        ("", {}, ["1", "2", "3"]),
        ("?after=0", {}, ["1", "2", "3"]),
        ("?after=2", {}, ["3"]),
        ("", {"last-event-id": "1"}, ["2", "3"]),
        ("?after=0", {"last-event-id": "2"}, ["3"]),
        ("?after=3", {}, []),
        ("?after=99", {}, []),
    ],
)
def test_a_stream_goes_on_where_the_last_one_was_cut(
    app_client: AppClient, query: str, headers: dict[str, str], ids: list[str]
) -> None:
    job_id = app_client.submit(job_document())["id"]
    _edit(app_client, job_id, 1)
    app_client.post(f"/v1/jobs/{job_id}/cancel")

    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream{query}", headers=headers)

    *events, (_, last, _) = _parse(answer.text)
    assert [event_id for event_id, _, _ in events] == ids
    assert last == "end"


def test_what_happens_while_streaming_comes_once_and_in_order(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]

    def act() -> None:
        _edit(app_client, job_id, 30)
        app_client.post(f"/v1/jobs/{job_id}/cancel")

    thread = _later(act)
    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream")
    thread.join()

    *events, (_, last, _) = _parse(answer.text)
    assert [int(event_id or 0) for event_id, _, _ in events] == list(range(1, 33))
    assert last == "end"
    assert app_client.streams.open_streams == 0


def test_rings_that_are_never_heard_cost_time_only(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(app_client.database.doorbell, "ring", lambda _topics: None)
    job_id = app_client.submit(job_document())["id"]

    thread = _later(lambda: app_client.post(f"/v1/jobs/{job_id}/cancel"))
    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream")
    thread.join()

    assert [kind for _, kind, _ in _parse(answer.text)] == ["job.pending", "job.cancelled", "end"]


def test_a_quiet_stream_says_that_it_is_still_there(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(streams_module, "HEARTBEAT_SECONDS", 0.1)
    job_id = app_client.submit(job_document())["id"]

    thread = _later(lambda: app_client.post(f"/v1/jobs/{job_id}/cancel"))
    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream")
    thread.join()

    assert ": still here\n\n" in answer.text


def test_streams_end_when_the_service_stops(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]

    thread = _later(app_client.streams.close)
    answer = app_client.get(f"/v1/jobs/{job_id}/events/stream")
    thread.join()

    assert [kind for _, kind, _ in _parse(answer.text)] == ["job.pending"]


def test_a_job_that_is_not_there_is_a_problem_not_a_stream(app_client: AppClient) -> None:
    answer = app_client.get("/v1/jobs/job_x/events/stream")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
