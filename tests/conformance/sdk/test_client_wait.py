"""Waiting for a job: to its end, over restarts, and no longer than asked."""

from collections.abc import Callable

import pytest

import trainmaster
from tests.conformance.sdk.conftest import FakeTime
from tests.conformance.sdk.fake_service import KEY, FakeService, Fault
from trainmaster import Client


def test_waiting_sees_every_version_and_returns_the_last(
    client: Client, service: FakeService
) -> None:
    job_id = service.add_job("queued")
    service.changes[job_id] = [{"state": "running"}, {"state": "succeeded"}]
    seen: list[str] = []

    job = client.jobs.wait(job_id, on_change=lambda job: seen.append(job.state))

    assert job.state == "succeeded"
    assert seen == ["queued", "running", "succeeded"]


def test_a_failed_job_raises_with_the_end_of_its_log(client: Client, service: FakeService) -> None:
    job_id = service.add_job("failed", reason="UserCodeError", message="rank 0 exited with 1")
    service.contents[f"/v1/jobs/{job_id}/logs"] = b"one\nValueError: boom\n"

    with pytest.raises(trainmaster.JobFailed) as caught:
        client.jobs.wait(job_id)

    assert caught.value.job.reason == "UserCodeError"
    assert caught.value.log_tail == ("one", "ValueError: boom")
    assert "rank 0 exited with 1" in str(caught.value)


def test_a_cancelled_job_raises_its_own_error(client: Client, service: FakeService) -> None:
    job_id = service.add_job("cancelled")

    with pytest.raises(trainmaster.JobCancelled):
        client.jobs.wait(job_id)

    assert client.jobs.wait(job_id, raise_on_failure=False).state == "cancelled"


def test_waiting_can_end_at_a_state_that_is_not_the_last(
    client: Client, service: FakeService
) -> None:
    job_id = service.add_job("running")
    service.changes[job_id] = [{"state": "paused"}]

    assert client.jobs.wait(job_id, until={"paused"}).state == "paused"


def test_waiting_survives_a_service_that_is_away(
    make_client: Callable[..., Client], service: FakeService, faketime: FakeTime
) -> None:
    job_id = service.add_job("running")
    service.changes[job_id] = [{"state": "succeeded"}]
    service.faults.append(Fault("GET", f"/v1/jobs/{job_id}", drop=True, count=15))

    with make_client(service.url, KEY, retry_seconds=1) as client:
        job = client.jobs.wait(job_id, outage_seconds=300)

    assert job.state == "succeeded"
    assert sum(faketime.slept) > 30


def test_waiting_ends_when_the_time_is_over(
    client: Client, service: FakeService, faketime: FakeTime
) -> None:
    job_id = service.add_job("running")

    with pytest.raises(trainmaster.WaitTimeout, match="still running after 3 s"):
        client.jobs.wait(job_id, timeout_seconds=3)

    # This service does not hold requests, so the client must not ask all the time.
    assert len(service.requests("GET", f"/v1/jobs/{job_id}")) < 12
    assert sum(faketime.slept) <= 3.5
