"""POST /v1/jobs/{id}/resize: at once, at the end of the attempt, or not at all, and why."""

from __future__ import annotations

from typing import Any

import pytest

from models import Attempt, Job, Quota
from models.queries.attempts import end_attempt
from scheduler.core.retry import AttemptEnd, Outcome
from tests.app_client import AppClient
from tests.factories import NOW, add_node, job_document, start_job

ELASTIC = {"min_workers": 1, "max_workers": 4}
CAPACITY = {"cpu_milli": 4000, "memory_mib": 8192, "gpus": []}


def _submit(client: AppClient, **overrides: Any) -> str:
    job_id: str = client.submit(job_document(elastic=ELASTIC, **overrides))["id"]
    return job_id


def _start(client: AppClient, job_id: str) -> str:
    with client.database.write() as session:
        return start_job(session, job_id, add_node(session, capacity=CAPACITY)).id


def _end(client: AppClient, attempt_id: str, outcome: Outcome = "stopped") -> None:
    with client.database.write() as session:
        attempt = session.get_one(Attempt, attempt_id)
        job = session.get_one(Job, attempt.job_id)
        end = AttemptEnd(outcome=outcome, stop_reason=job.stop_reason)
        end_attempt(session, attempt, end, now=NOW)


def _resize(client: AppClient, job_id: str, workers: object, **headers: str) -> Any:
    return client.post(f"/v1/jobs/{job_id}/resize", json={"workers": workers}, headers=headers)


def _resume_sha256(client: AppClient, job_id: str) -> str | None:
    with client.database.read() as session:
        return session.get_one(Job, job_id).resume_sha256


def _limit_gpus(client: AppClient, job_id: str, limit_gpus: int) -> None:
    with client.database.write() as session:
        project_id = session.get_one(Job, job_id).project_id
        quota = Quota(project_id=project_id, limit_gpus=limit_gpus, created_at=NOW, updated_at=NOW)
        session.add(quota)


def _events(client: AppClient, job_id: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client.get(f"/v1/jobs/{job_id}/events?limit=100").json()["data"]
    assert [event["seq"] for event in data] == list(range(1, len(data) + 1))
    return data


def _problems(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(one["pointer"], one["code"]) for one in answer.json()["errors"]]


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_job_that_holds_no_places_has_its_new_size_at_once(
    app_client: AppClient, is_paused: bool
) -> None:
    job_id = _submit(app_client, parallel={"data": 2})
    if is_paused:
        app_client.post(f"/v1/jobs/{job_id}/pause")

    shown = _resize(app_client, job_id, 3).json()

    assert (shown["spec"]["workers"], shown["spec"]["parallel"]["data"]) == (3, 3)
    assert (shown["state"], shown["resizing_to"]) == ("paused" if is_paused else "pending", None)
    event = _events(app_client, job_id)[-1]
    assert event["type"] == "job.resized"
    assert (event["data"]["workers_before"], event["data"]["workers"]) == (2, 3)
    with app_client.database.read() as session:
        assert session.get_one(Job, job_id).num_workers == 3


def test_an_attempt_keeps_its_size_until_it_has_stopped(app_client: AppClient) -> None:
    job_id = _submit(app_client)
    attempt_id = _start(app_client, job_id)

    asked = _resize(app_client, job_id, 4).json()
    _end(app_client, attempt_id)
    shown = app_client.get(f"/v1/jobs/{job_id}").json()

    assert (asked["state"], asked["reason"], asked["resizing_to"]) == ("stopping", "Resizing", 4)
    assert asked["spec"]["workers"] == 2
    assert (shown["state"], shown["reason"], shown["resizing_to"]) == ("pending", "Resized", None)
    assert shown["spec"]["workers"] == 4
    assert shown["evictions"] == 0
    told = _events(app_client, job_id)[-1]["data"]
    assert (told["workers_before"], told["workers"]) == (2, 4)
    with app_client.database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.num_workers, job.user_failures, job.infra_failures) == (4, 0, 0)


def test_who_asks_last_before_it_has_stopped_decides(app_client: AppClient) -> None:
    job_id = _submit(app_client)
    attempt_id = _start(app_client, job_id)

    first, again = _resize(app_client, job_id, 4), _resize(app_client, job_id, 4)
    other = _resize(app_client, job_id, 1)
    _end(app_client, attempt_id)

    assert again.json() == first.json()
    assert other.json()["resizing_to"] == 1
    assert app_client.get(f"/v1/jobs/{job_id}").json()["spec"]["workers"] == 1
    assert [event["type"] for event in _events(app_client, job_id)][-3:] == [
        "job.stopping",
        "job.resize_asked",
        "job.pending",
    ]


def test_a_resize_that_is_called_off_leaves_the_size_and_the_attempt_comes_back(
    app_client: AppClient,
) -> None:
    job_id = _submit(app_client)
    before = _resume_sha256(app_client, job_id)
    attempt_id = _start(app_client, job_id)

    _resize(app_client, job_id, 4)
    kept = _resize(app_client, job_id, 2)
    again = _resize(app_client, job_id, 2)
    _end(app_client, attempt_id)

    assert (kept.json()["state"], kept.json()["resizing_to"]) == ("stopping", None)
    assert again.json() == kept.json()
    shown = app_client.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["reason"]) == ("pending", "Resumed")
    assert "keeps its number of workers" in shown["message"]
    assert shown["spec"]["workers"] == 2
    called_off, ended = _events(app_client, job_id)[-2:]
    assert called_off["type"] == "job.resize_called_off"
    assert (called_off["data"]["workers"], called_off["data"]["called_off"]) == (2, 4)
    assert "workers_before" not in ended["data"]
    assert _resume_sha256(app_client, job_id) == before


def test_of_two_who_have_read_the_same_version_one_is_refused(app_client: AppClient) -> None:
    job_id = _submit(app_client)
    etag = app_client.get(f"/v1/jobs/{job_id}").headers["etag"]

    first = _resize(app_client, job_id, 3, **{"if-match": etag})
    second = _resize(app_client, job_id, 4, **{"if-match": etag})

    assert first.status_code == 200
    assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")
    assert app_client.get(f"/v1/jobs/{job_id}").json()["spec"]["workers"] == 3


def test_the_same_size_changes_nothing_and_the_same_request_is_answered_once(
    app_client: AppClient,
) -> None:
    job_id = _submit(app_client)

    same = _resize(app_client, job_id, 2)
    first = _resize(app_client, job_id, 3, **{"idempotency-key": "k"})
    replayed = _resize(app_client, job_id, 3, **{"idempotency-key": "k"})

    assert (same.status_code, same.json()["version"]) == (200, 1)
    assert first.json()["version"] == 2
    assert replayed.headers["idempotency-replayed"] == "true"


def test_a_job_that_is_paused_instead_has_its_new_size_when_it_goes_on(
    app_client: AppClient,
) -> None:
    job_id = _submit(app_client)
    attempt_id = _start(app_client, job_id)
    _resize(app_client, job_id, 3)

    app_client.post(f"/v1/jobs/{job_id}/pause")
    _end(app_client, attempt_id)

    shown = app_client.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["spec"]["workers"]) == ("paused", 3)


@pytest.mark.parametrize("outcome", ["succeeded", "lost"])
def test_an_attempt_that_ends_otherwise_leaves_no_size_pending(
    app_client: AppClient, outcome: Outcome
) -> None:
    job_id = _submit(app_client)
    attempt_id = _start(app_client, job_id)
    _resize(app_client, job_id, 3)

    _end(app_client, attempt_id, outcome)

    shown = app_client.get(f"/v1/jobs/{job_id}").json()
    assert shown["resizing_to"] is None
    assert shown["spec"]["workers"] == (2 if outcome == "succeeded" else 3)


def test_a_job_that_ends_is_not_resized(app_client: AppClient) -> None:
    job_id, other = _submit(app_client), _submit(app_client)
    _start(app_client, job_id)
    app_client.post(f"/v1/jobs/{job_id}/cancel")
    app_client.post(f"/v1/jobs/{other}/cancel")

    for ending in (job_id, other):
        answer = _resize(app_client, ending, 3)

        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")


def test_a_job_without_bounds_says_how_to_get_them(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]

    answer = _resize(app_client, job_id, 3)

    assert (answer.status_code, answer.json()["code"]) == (409, "not_elastic")
    assert "fork it" in answer.json()["detail"]


def test_what_the_new_size_would_break_is_refused_with_its_place(app_client: AppClient) -> None:
    bounds = {"min_workers": 1, "max_workers": 64}
    job_id = app_client.submit(job_document(elastic=bounds))["id"]
    spread = app_client.submit(
        job_document(parallel={"shard": 2}, elastic={"min_workers": 2, "max_workers": 4})
    )["id"]
    with app_client.database.write() as session:
        add_node(session, capacity=CAPACITY)

    assert _problems(_resize(app_client, job_id, 65)) == [("/workers", "out_of_bounds")]
    assert _problems(_resize(app_client, job_id, 5)) == [("/workers", "gang_too_large")]
    assert _problems(_resize(app_client, spread, 3)) == [("/workers", "replica_cut")]
    assert _problems(_resize(app_client, job_id, 0)) == [("/workers", "greater_than_equal")]
    assert _resize(app_client, job_id, 4).status_code == 200


def test_a_size_beyond_the_quota_is_refused(app_client: AppClient) -> None:
    job_id = _submit(app_client, resources={"gpus": 1})
    _limit_gpus(app_client, job_id, 2)

    assert _problems(_resize(app_client, job_id, 3)) == [("/workers", "beyond_quota")]
    assert _resize(app_client, job_id, 1).status_code == 200


def test_a_job_that_has_too_much_may_shrink_and_not_grow(app_client: AppClient) -> None:
    bounds = {"min_workers": 1, "max_workers": 64}
    overdrawn = _submit(app_client, workers=3, resources={"gpus": 1})
    too_large = app_client.submit(job_document(workers=8, elastic=bounds))["id"]
    _limit_gpus(app_client, overdrawn, 1)
    with app_client.database.write() as session:
        add_node(session, capacity=CAPACITY)

    assert _problems(_resize(app_client, overdrawn, 4)) == [("/workers", "beyond_quota")]
    assert _resize(app_client, overdrawn, 2).json()["spec"]["workers"] == 2
    assert _problems(_resize(app_client, too_large, 9)) == [("/workers", "gang_too_large")]
    assert _resize(app_client, too_large, 7).json()["spec"]["workers"] == 7


@pytest.mark.parametrize("parallel", [None, {"data": 2}])
@pytest.mark.parametrize("is_running", [False, True])
def test_a_resized_job_resumes_as_one_that_was_submitted_with_its_size(
    app_client: AppClient, parallel: dict[str, int] | None, is_running: bool
) -> None:
    larger = {**parallel, "data": 3} if parallel else None
    twin = _submit(app_client, workers=3, parallel=larger)
    job_id = _submit(app_client, workers=2, parallel=parallel)
    first = _resume_sha256(app_client, job_id)
    attempt_id = _start(app_client, job_id) if is_running else None

    _resize(app_client, job_id, 3)
    while_it_stops = _resume_sha256(app_client, job_id)
    if attempt_id is not None:
        _end(app_client, attempt_id)
    resized = _resume_sha256(app_client, job_id)
    _resize(app_client, job_id, 2)

    assert first is not None
    assert while_it_stops == (first if is_running else resized)
    assert resized == _resume_sha256(app_client, twin) != first
    assert _resume_sha256(app_client, job_id) == first
