"""Asking why, over HTTP: of jobs in every state, and of jobs that are not submitted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from models import Attempt, Event, Job, Pool, Queue
from models.queries.attempts import end_attempt
from models.queries.jobs import advance_job
from scheduler.core.retry import AttemptEnd
from scheduler.core.states import JobEvent, JobState
from tests.app_client import AppClient
from tests.factories import add_node, job_document, start_job


def _explain(client: AppClient, job_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def _simulate(client: AppClient, document: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs/simulate", json=document, params=query)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def _submit(client: AppClient, **fields: Any) -> str:
    job_id: str = client.submit(job_document(**fields))["id"]
    return job_id


def _run(client: AppClient, *, node: str = "box1", **fields: Any) -> str:
    """Let a job of two workers run on a node of its own."""
    job_id = _submit(client, **fields)
    with client.database.write() as session:
        start_job(session, job_id, add_node(session, node))
    return job_id


def _learn(client: AppClient, count: int = 12) -> None:
    """Let jobs have ended that took an hour each."""
    for number in range(count):
        job_id = _submit(client, name=f"past-{number}", limits={"wall_seconds": 3600})
        with client.database.write() as session:
            job = session.get_one(Job, job_id)
            job.served_ms = 3_000_000
            advance_job(session, job, JobEvent.CANCELLED, reason="CancelledByUser", now=_now())


def _now() -> datetime:
    return datetime.now(UTC)


def _count_rows(client: AppClient) -> tuple[int | None, int | None]:
    with client.database.read() as session:
        return (
            session.scalar(select(func.count()).select_from(Job)),
            session.scalar(select(func.count()).select_from(Event)),
        )


class TestWaiting:
    """Why, behind whom, until when, and what would help."""

    def test_it_says_why_with_numbers_when_and_what_would_help(self, app_client: AppClient) -> None:
        _learn(app_client)
        running = _run(app_client, limits={"wall_seconds": 3600}, preemptible=False)
        job_id = _submit(app_client, limits={"wall_seconds": 3600})

        said = _explain(app_client, job_id)

        assert (said["job_id"], said["state"], said["project"]) == (job_id, "pending", "default")
        assert said["reason"] == "InsufficientResources"
        assert said["numbers"]["needed_workers"] == 2
        assert said["numbers"]["free_workers"] == 0
        start = said["start"]
        assert start["withheld"] is None
        assert said["asked_at"] < start["p10_at"] <= start["p50_at"] <= start["p90_at"]
        assert said["end"] is None
        assert said["options_complete"] is True
        assert running != job_id

    def test_fewer_workers_are_offered_where_they_fit(self, app_client: AppClient) -> None:
        _learn(app_client)
        with app_client.database.write() as session:
            add_node(session, "spare", capacity={"cpu_milli": 1000, "memory_mib": 99, "gpus": []})
        _run(app_client, limits={"wall_seconds": 3600}, preemptible=False)
        job_id = _submit(app_client, limits={"wall_seconds": 3600})

        said = _explain(app_client, job_id)

        (option,) = [one for one in said["options"] if "workers" in one["change"]]
        assert option["change"] == {"workers": 1}
        assert option["sooner_seconds"] > 60

    @pytest.mark.parametrize("elastic", [None, {"min_workers": 1, "max_workers": 2}])
    def test_what_is_offered_says_whether_a_resize_gives_it(
        self, app_client: AppClient, elastic: dict[str, int] | None
    ) -> None:
        _run(app_client, preemptible=False)
        with app_client.database.write() as session:
            add_node(session, "spare", capacity={"cpu_milli": 1000, "memory_mib": 99, "gpus": []})
        job_id = _submit(app_client, elastic=elastic)

        (option,) = _explain(app_client, job_id)["options"]
        resized = app_client.post(f"/v1/jobs/{job_id}/resize", json=option["change"])

        assert option["change"] == {"workers": 1}
        assert option["resizable"] is (elastic is not None)
        assert resized.status_code == (409 if elastic is None else 200)

    def test_a_layout_is_changed_as_a_whole(self, app_client: AppClient) -> None:
        _run(app_client)
        with app_client.database.write() as session:
            add_node(session, "small", capacity={"cpu_milli": 1000, "memory_mib": 99, "gpus": []})
        document = job_document(parallel={"data": 2})

        (option,) = _simulate(app_client, document)["options"]
        changed = {**document, **option["change"]}

        assert option["change"] == {"workers": 1, "parallel": {"data": 1}}
        assert _simulate(app_client, changed)["would_be_accepted"] is True

    def test_an_estimate_is_withheld_in_a_new_service(self, app_client: AppClient) -> None:
        _run(app_client)
        job_id = _submit(app_client)

        start = _explain(app_client, job_id)["start"]

        assert start["p50_at"] is None
        assert "fewer than 10" in start["withheld"]

    def test_jobs_of_others_are_counted_and_never_named(self, app_client: AppClient) -> None:
        app_client.make_project("vision")
        theirs = app_client.with_key(app_client.make_key(project="vision"))
        _run(app_client)
        own = _submit(app_client, priority=90)
        other = theirs.post("/v1/jobs", json=job_document(priority=90)).json()["id"]
        job_id = _submit(app_client)

        answer = app_client.get(f"/v1/jobs/{job_id}/explain")

        ahead = answer.json()["ahead"]
        assert (ahead["own_job_ids"], ahead["num_own"], ahead["num_others"]) == ([own], 1, 1)
        assert answer.json()["reason"] == "HigherPriorityAhead"
        assert other not in answer.text
        assert theirs.get(f"/v1/jobs/{job_id}/explain").status_code == 404
        assert app_client.get(f"/v1/jobs/{other}/explain").json()["project"] == "vision"

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            pytest.param({"hold": True}, "HeldByUser", id="held"),
            pytest.param({"begin_at": "2999-01-01T00:00:00Z"}, "BeginTimeNotReached", id="later"),
        ],
    )
    def test_what_holds_it_back_is_named_with_what_to_do(
        self, app_client: AppClient, fields: dict[str, Any], reason: str
    ) -> None:
        said = _explain(app_client, _submit(app_client, **fields))

        assert said["reason"] == reason
        assert said["next"]
        assert said["start"]["withheld"]

    def test_changes_are_seen_at_once(self, app_client: AppClient) -> None:
        job_id = _submit(app_client, hold=True)
        assert _explain(app_client, job_id)["reason"] == "HeldByUser"

        app_client.post(f"/v1/jobs/{job_id}/release")

        assert _explain(app_client, job_id)["reason"] == "NoNodes"

    def test_a_guaranteed_start_is_shown(self, app_client: AppClient) -> None:
        job_id = _submit(app_client)
        with app_client.database.write() as session:
            job = session.get_one(Job, job_id)
            job.reservation = {"start_ms": 4_102_444_800_000, "node_ids": []}

        start = _explain(app_client, job_id)["start"]

        assert start["latest_at"] == "2100-01-01T00:00:00Z"


class TestOthers:
    """Jobs that run, rest or have ended."""

    def test_a_running_job_says_when_it_should_end(self, app_client: AppClient) -> None:
        job_id = _run(app_client, limits={"wall_seconds": 3600})
        with app_client.database.write() as session:
            attempt = session.scalars(select(Attempt).where(Attempt.job_id == job_id)).one()
            attempt.progress = {"step": 10, "total_steps": 110, "steps_per_second": 2.0}

        said = _explain(app_client, job_id)

        assert (said["state"], said["reason"], said["start"]) == ("running", "Training", None)
        assert said["end"]["basis"] == "progress"
        assert said["end"]["p50_at"] < said["end"]["latest_at"]
        latest_at = datetime.fromisoformat(said["end"]["latest_at"])
        assert latest_at - _now() < timedelta(hours=1)

    def test_a_running_job_of_which_nothing_is_known_says_so(self, app_client: AppClient) -> None:
        end = _explain(app_client, _run(app_client))["end"]

        assert (end["p50_at"], end["basis"], end["latest_at"]) == (None, None, None)
        assert "no progress" in end["withheld"]

    def test_a_failed_job_says_the_cause_and_what_to_do(self, app_client: AppClient) -> None:
        job_id = _run(app_client)
        with app_client.database.write() as session:
            attempt = session.scalars(select(Attempt).where(Attempt.job_id == job_id)).one()
            end = AttemptEnd(outcome="failed", reason="GpuOutOfMemory", message="out of memory")
            end_attempt(session, attempt, end, now=_now())

        said = _explain(app_client, job_id)

        assert (said["state"], said["reason"]) == ("failed", "GpuOutOfMemory")
        assert said["message"] == "out of memory"
        assert said["numbers"] == {"attempts": 1, "user_failures": 1, "infra_failures": 0}
        assert "smaller batch" in said["next"][0]["text"]
        assert said["next"][1]["command"] == f"trainmaster fork {job_id}"
        assert (said["start"], said["end"], said["ahead"]) == (None, None, None)

    def test_a_paused_job_says_how_it_goes_on(self, app_client: AppClient) -> None:
        job_id = _submit(app_client)
        app_client.post(f"/v1/jobs/{job_id}/pause")

        said = _explain(app_client, job_id)

        assert said["state"] == JobState.PAUSED
        assert said["next"][0]["command"] == f"trainmaster resume {job_id}"

    def test_there_is_no_explanation_of_nothing(self, app_client: AppClient) -> None:
        answer = app_client.get("/v1/jobs/job_01kasy0e5xq5b2p0v3m8n7r4tz/explain")

        assert answer.status_code == 404


class TestSimulating:
    """The same for a spec; nothing is written."""

    def test_it_answers_as_explain_would(self, app_client: AppClient) -> None:
        _learn(app_client)
        _run(app_client, limits={"wall_seconds": 3600}, preemptible=False)
        document = job_document(limits={"wall_seconds": 3600})

        before = _count_rows(app_client)
        said = _simulate(app_client, document)
        after = _count_rows(app_client)
        real = _explain(app_client, app_client.submit(document)["id"])

        assert before == after
        assert said["would_be_accepted"] is True
        assert (said["job_id"], said["state"], said["errors"]) == (None, "queued", [])
        for field in ("reason", "message", "ahead"):
            assert said[field] == real[field]
        assert said["start"]["p50_at"] is not None
        assert said["spec"]["limits"]["wall_seconds"] == 3600

    def test_one_that_fits_would_start_at_once(self, app_client: AppClient) -> None:
        with app_client.database.write() as session:
            add_node(session)

        said = _simulate(app_client, job_document())

        assert said["reason"] == "WaitingForPlacement"
        assert said["start"]["p50_at"] is not None
        assert said["options"] == []

    def test_another_pool_is_offered(self, app_client: AppClient) -> None:
        with app_client.database.write() as session:
            session.add(Pool(name="side", created_at=_now()))
            session.flush()
            session.add(Queue(name="side", pool="side", created_at=_now()))
            add_node(session, "side1", pool="side")
        _run(app_client)

        said = _simulate(app_client, job_document())

        assert [one["change"] for one in said["options"] if "pool" in one["change"]] == [
            {"queue": "side", "pool": "side"}
        ]

    def test_all_that_is_wrong_is_listed_at_once(self, app_client: AppClient) -> None:
        document = {"recipe": "nothing", "wrkers": 2, "depends_on": ["job_none"], "priority": 101}

        said = _simulate(app_client, document)
        told = app_client.post("/v1/jobs/validate", json=document).json()

        assert said["would_be_accepted"] is False
        assert said["errors"] == told["errors"]
        assert len(said["errors"]) == 4
        assert (said["state"], said["start"], said["spec"]) == (None, None, None)

    def test_files_may_be_taken_for_uploaded(self, app_client: AppClient) -> None:
        document = {
            "code": "file_later", "entrypoint": "train.py", "inputs": {"train": "file_later"},
        }  # fmt: skip

        refused = _simulate(app_client, document)
        taken = _simulate(app_client, document, assume_files=True)

        assert [one["pointer"] for one in refused["errors"]] == ["/code", "/inputs/train"]
        assert taken["would_be_accepted"] is True

    def test_a_dependency_is_waited_for(self, app_client: AppClient) -> None:
        first = _submit(app_client)

        said = _simulate(app_client, job_document(depends_on=[first]))

        assert (said["state"], said["reason"]) == ("pending", "DependencyNotMet")
        assert first in said["message"]

    def test_a_viewer_may_not_simulate_and_may_explain(self, app_client: AppClient) -> None:
        viewer = app_client.with_key(app_client.make_key("viewer"))
        job_id = _submit(app_client)

        assert viewer.post("/v1/jobs/simulate", json=job_document()).status_code == 403
        assert viewer.get(f"/v1/jobs/{job_id}/explain").status_code == 200

    @pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b'{"workers": 1, "workers": 2}'])
    def test_what_is_no_document_is_refused(self, app_client: AppClient, body: bytes) -> None:
        answer = app_client.post(
            "/v1/jobs/simulate", content=body, headers={"content-type": "application/json"}
        )

        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
