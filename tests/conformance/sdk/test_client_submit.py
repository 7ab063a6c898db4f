"""A submitted job exists once, whatever the network does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainmaster
from tests.conformance.sdk.conftest import FakeTime
from tests.conformance.sdk.fake_service import KEY, FakeService, Fault
from trainmaster import Client

SPEC: dict[str, Any] = {"recipe": "image-classifier", "workers": 2}


def test_a_reply_lost_after_the_write_leaves_one_job(client: Client, service: FakeService) -> None:
    service.faults.append(Fault("POST", "/v1/jobs", drop=True, count=2))

    job = client.jobs.submit(SPEC)

    assert [job.id] == list(service.jobs)
    keys = {each.headers["Idempotency-Key"] for each in service.requests("POST", "/v1/jobs")}
    assert len(service.requests("POST", "/v1/jobs")) == 3
    assert len(keys) == 1


def test_two_submissions_are_two_jobs(client: Client, service: FakeService) -> None:
    first, second = client.jobs.submit(SPEC), client.jobs.submit(**SPEC)

    assert first.id != second.id
    assert len(service.jobs) == 2


def test_a_key_of_ones_own_names_the_submission(client: Client, service: FakeService) -> None:
    first = client.jobs.submit(SPEC, idempotency_key="nightly-1")
    second = client.jobs.submit(SPEC, idempotency_key="nightly-1")

    assert first.id == second.id
    assert len(service.jobs) == 1


def test_a_busy_service_is_given_the_time_it_asks_for(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    service.faults.append(Fault("POST", "/v1/jobs", status=503, headers={"Retry-After": "7"}))

    job = client.jobs.submit(SPEC)

    assert job.state == "queued"
    assert faketime.slept == [7.0]


def test_a_first_try_still_in_work_is_waited_for(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    service.faults.append(Fault("POST", "/v1/jobs", status=409, headers={"Retry-After": "1"}))

    client.jobs.submit(SPEC)

    assert faketime.slept == [1.0]


def test_a_conflict_is_not_tried_again(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    job_id = service.add_job("succeeded")

    with pytest.raises(trainmaster.ConflictError) as caught:
        client.jobs.cancel(job_id)

    assert caught.value.code == "illegal_transition"
    assert not faketime.slept


def test_the_service_is_not_asked_for_longer_than_the_patience_lasts(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    service.faults.append(Fault("GET", "/v1/jobs", status=503, count=1000))

    with pytest.raises(trainmaster.ServerError) as caught:
        client.jobs.get("job_1")

    assert caught.value.status == 503
    assert 30 < sum(faketime.slept) <= 60


def test_a_delay_beyond_the_patience_ends_it_at_once(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    fault = Fault("GET", "/v1/jobs", status=429, headers={"Retry-After": "3600"}, count=1000)
    service.faults.append(fault)

    with pytest.raises(trainmaster.RateLimitError) as caught:
        client.jobs.get("job_1")

    assert caught.value.retry_after == 3600
    assert not faketime.slept


def test_an_edit_without_a_key_is_sent_once_when_its_reply_is_lost(
    client: Client, service: FakeService
) -> None:
    job_id = service.add_job()
    service.faults.append(Fault("PATCH", "/v1/jobs", drop=True))

    with pytest.raises(trainmaster.APIConnectionError):
        client.jobs.update(job_id, priority=80)

    assert len(service.requests("PATCH", f"/v1/jobs/{job_id}")) == 1


def test_an_edit_of_a_job_that_changed_meanwhile_is_refused(
    client: Client, service: FakeService
) -> None:
    job = client.jobs.get(service.add_job())
    service.change_job(job.id, {"priority": 10})

    with pytest.raises(trainmaster.PreconditionFailedError):
        client.jobs.update(job, priority=80)

    assert client.jobs.update(client.jobs.get(job.id), priority=80).priority == 80


def test_every_wrong_field_is_named(client: Client) -> None:
    with pytest.raises(trainmaster.UnprocessableError) as caught:
        client.jobs.submit(recipe="image-classifier", workerz=2)

    assert [error.pointer for error in caught.value.errors] == ["/workerz"]
    assert "did you mean workers?" in str(caught.value)
    assert caught.value.request_id == "req_1"


def test_a_folder_given_as_code_is_uploaded_once(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    service.faults.append(Fault("POST", "/v1/files", drop=True))

    job = client.jobs.submit(code=tmp_path, entrypoint="train.py")

    assert job.spec["code"] == "file_1"
    assert list(service.contents) == ["/v1/files/file_1/content"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_what_json_has_no_word_for_is_refused_before_it_is_sent(
    client: Client, service: FakeService, value: object
) -> None:
    with pytest.raises(trainmaster.ConfigurationError, match="cannot be sent as JSON"):
        client.jobs.submit(config={"x": value})

    assert not service.seen


def test_a_service_that_is_not_there_is_named_with_the_way_out(
    make_client: Callable[..., Client],
) -> None:
    with (
        make_client("http://127.0.0.1:9", retry_seconds=1) as client,
        pytest.raises(trainmaster.APIConnectionError, match="cannot reach Trainmaster at http"),
    ):
        client.jobs.list()


def test_a_wrong_key_is_not_tried_again(
    service: FakeService, make_client: Callable[..., Client], faketime: FakeTime
) -> None:
    with (
        make_client(service.url, "tml-wrong") as client,
        pytest.raises(trainmaster.AuthenticationError, match="TRAINMASTER_API_KEY"),
    ):
        client.jobs.list()

    assert not faketime.slept


def test_the_key_travels_in_the_authorization_header_only(
    client: Client, service: FakeService
) -> None:
    client.jobs.submit(SPEC)

    (seen,) = service.seen
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(client) + str(seen.query)


def test_a_key_is_never_made_twice(client: Client, service: FakeService) -> None:
    service.faults.append(Fault("POST", "/v1/keys", drop=True))

    with pytest.raises(trainmaster.APIConnectionError):
        client.keys.create("ci", role="viewer")

    assert len(service.requests("POST", "/v1/keys")) == 1
