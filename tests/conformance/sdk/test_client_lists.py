"""Lists, series and answers of every shape."""

import itertools
from collections.abc import Callable, Iterator

import httpx
import pytest

import trainmaster
from tests.conformance.sdk.conftest import FakeTime
from tests.conformance.sdk.fake_service import FakeService
from trainmaster import Client


def test_iterating_goes_through_all_pages_and_fetches_no_more_than_needed(
    client: Client, service: FakeService
) -> None:
    ids = [service.add_job() for _ in range(45)]

    page = client.jobs.list(limit=10)
    first_twelve = [job.id for job in itertools.islice(page, 12)]
    requests = len(service.seen)
    everything = [job.id for job in client.jobs.list(limit=10)]

    assert len(page.data) == 10
    assert first_twelve == ids[:12]
    assert requests == 2
    assert everything == ids


def test_filters_are_sent_with_every_page(client: Client, service: FakeService) -> None:
    for _ in range(3):
        service.add_job()

    list(client.jobs.list(state=["running", "queued"], label=["team:vision", "a:b"], limit=2))

    assert [each.query.get("state") for each in service.seen] == ["running,queued"] * 2
    assert service.seen[1].query["label"] == "team:vision a:b"


def test_a_list_that_does_not_move_on_ends_with_an_error(
    make_client: Callable[..., Client],
) -> None:
    page = {"object": "list", "data": [{"id": "n"}], "has_more": True, "next_cursor": "same"}
    http = httpx.MockTransport(lambda _: httpx.Response(200, json=page))

    with (
        make_client("http://localhost", http=http) as client,
        pytest.raises(trainmaster.APIResponseError, match="does not move on"),
    ):
        list(client.nodes.list())


def test_metrics_are_numbers_even_where_json_has_none(client: Client, service: FakeService) -> None:
    job_id = service.add_job()
    path = f"/v1/jobs/{job_id}/metrics"
    service.documents[path] = {
        "object": "metric_series",
        "key": "train/loss",
        "rank": 0,
        "steps": [1, 2, 3],
        "times": [1.0, 2.0, 3.0],
        "values": [0.5, "NaN", "-Infinity"],
        "count": 3,
    }

    series = client.jobs.metrics.series(job_id, "train/loss", points=500, rank=0)

    assert series.steps == [1, 2, 3]
    assert series.values[0] == 0.5
    assert series.values[1] != series.values[1]
    assert series.values[2] == float("-inf")
    assert service.seen[0].query == {"key": "train/loss", "points": "500", "rank": "0"}


def test_fields_of_a_newer_server_are_kept(client: Client, service: FakeService) -> None:
    job_id = service.add_job("hibernating", mood="cheerful")

    job = client.jobs.get(job_id)

    assert job.state == "hibernating"
    assert job.raw["mood"] == "cheerful"
    assert not job.is_terminal


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"null", b'{"object":"job"}', b""])
def test_an_answer_that_is_not_trainmasters_says_so(
    make_client: Callable[..., Client], body: bytes
) -> None:
    http = httpx.MockTransport(lambda _: httpx.Response(200, content=body))

    with (
        make_client("http://localhost", http=http) as client,
        pytest.raises(trainmaster.APIResponseError),
    ):
        client.jobs.get("job_1")


def test_an_answer_that_drips_is_given_up_and_asked_for_again(
    make_client: Callable[..., Client], faketime: FakeTime
) -> None:
    tries: list[int] = []

    def drip() -> Iterator[bytes]:
        for _ in range(1000):
            faketime.sleep(5.0)
            yield b" "

    def answer(_: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            return httpx.Response(200, content=drip())
        return httpx.Response(200, json={"id": "job_1", "state": "running"})

    http = httpx.MockTransport(answer)
    with make_client("http://localhost", http=http, timeout_seconds=30) as client:
        assert client.jobs.get("job_1").state == "running"

    assert len(tries) == 2


def test_ids_cannot_change_the_path(client: Client, service: FakeService) -> None:
    with pytest.raises(trainmaster.NotFoundError):
        client.jobs.get("../keys?x=1#y")
    with pytest.raises(trainmaster.ConfigurationError):
        client.jobs.get("")
    with pytest.raises(trainmaster.ConfigurationError):
        client.jobs.get("..")

    assert service.seen[0].path == "/v1/jobs/../keys?x=1#y"
