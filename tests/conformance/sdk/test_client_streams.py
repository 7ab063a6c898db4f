"""Streams go on after a cut, without a gap and without a double."""

from collections.abc import Callable
from typing import Any

import pytest

import trainmaster
from tests.conformance.sdk.conftest import FakeTime
from tests.conformance.sdk.fake_service import FakeService, Fault
from trainmaster import Client


def event(seq: int) -> tuple[str, str, Any]:
    data = {"id": f"evt_{seq}", "seq": seq, "type": "job.state", "state": "running"}
    return str(seq), "job.state", data


EVENTS = [event(seq) for seq in range(1, 31)]
END: tuple[str, str, Any] = ("", "end", {})


@pytest.mark.parametrize("cut_after", [0, 5, 200, 201, 777, 1500, 2500])
def test_a_stream_cut_anywhere_is_whole_in_the_end(
    client: Client, service: FakeService, cut_after: int
) -> None:
    path = f"/v1/jobs/{service.add_job()}/events/stream"
    service.streams[path] = [*EVENTS, END]
    service.faults.append(Fault("GET", path, cut_after=cut_after, count=3))

    seen = [each.seq for each in client.jobs.events.stream("job_0001")]

    assert seen == list(range(1, 31))


def test_events_sent_again_are_not_given_twice(client: Client, service: FakeService) -> None:
    path = f"/v1/jobs/{service.add_job()}/events/stream"
    service.streams[path] = [*EVENTS[:5], *EVENTS[:8], END]

    assert [each.seq for each in client.jobs.events.stream("job_0001")] == list(range(1, 9))


def test_a_stream_begins_after_what_is_known(client: Client, service: FakeService) -> None:
    path = f"/v1/jobs/{service.add_job()}/events/stream"
    service.streams[path] = [*EVENTS, END]

    assert [each.seq for each in client.jobs.events.stream("job_0001", after=28)] == [29, 30]


def test_a_stream_of_nothing_is_refused_at_once(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    with pytest.raises(trainmaster.NotFoundError):
        list(client.jobs.events.stream("job_9"))

    assert not faketime.slept


def test_a_stream_that_never_comes_back_is_given_up(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    path = f"/v1/jobs/{service.add_job()}/events/stream"
    service.streams[path] = [*EVENTS, END]
    service.faults.append(Fault("GET", path, status=503, count=1000))

    with pytest.raises(trainmaster.ServerError):
        list(client.jobs.events.stream("job_0001", outage_seconds=20))

    assert sum(faketime.slept) <= 20


def test_log_lines_and_metric_points_stream_too(client: Client, service: FakeService) -> None:
    job_id = service.add_job()
    log = {"id": "1", "attempt": 1, "rank": 0, "stream": "stdout", "offset": 0, "text": "hi"}
    service.streams[f"/v1/jobs/{job_id}/logs/stream"] = [("1", "log", log), END]
    points = [
        {"key": "train/loss", "rank": 0, "step": 1, "time": 5.0, "value": "NaN"},
        {"key": "train/loss", "rank": 0, "step": 2, "time": 6.0, "value": 0.5},
    ]
    path = f"/v1/jobs/{job_id}/metrics/stream"
    service.streams[path] = [("1", "metrics", {"points": points}), END]

    (chunk,) = client.jobs.logs.follow(job_id, rank=0)
    (batch,) = client.jobs.metrics.follow(job_id)

    assert chunk.text == "hi"
    assert service.requests("GET", f"/v1/jobs/{job_id}/logs/stream")[0].query == {"rank": "0"}
    assert batch[0].value != batch[0].value
    assert (batch[1].step, batch[1].value) == (2, 0.5)


def test_a_page_of_html_is_no_stream(
    make_client: Callable[..., Client], service: FakeService
) -> None:
    path = f"/v1/jobs/{service.add_job()}/events/stream"
    service.contents[path] = b"<html>"

    with (
        make_client(service.url) as client,
        pytest.raises(trainmaster.APIResponseError, match="instead of events"),
    ):
        list(client.jobs.events.stream("job_0001"))
