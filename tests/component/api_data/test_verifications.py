"""Verifications over HTTP, with supervisors that the test plays and the loop run by hand."""

from __future__ import annotations

from typing import Any

import pytest

from models import Job, NodeFault
from tests.component.api_data.desk import Desk, ok, problem
from tests.component.api_data.verified import FILES, LAST_STEP, SPEC, Play, meta


def test_two_ends_that_are_the_same_are_exact_and_jobs_show_it(desk: Desk, play: Play) -> None:
    asked = play.ask(seed=4, tolerance=0.1)
    assert (asked["state"], asked["verdict"], asked["seed"]) == ("reference", None, 4)

    play.run_reference(asked, FILES, loss=1.0)
    half = play.read(asked)
    play.run_interrupted(asked, FILES, loss=1.0)

    assert half["state"] == "interrupted"
    found = play.read(asked)
    assert (found["state"], found["verdict"], found["reason"]) == ("finished", "exact", "SameFiles")
    assert found["version"] > half["version"] > asked["version"]
    plan, compared = found["interruption"], found["comparison"]
    assert compared["killed_at_step"] == plan["kill_at_step"]
    assert compared["resumed_from_step"] == plan["save_at_step"]
    assert (compared["num_files"], compared["num_files_same"]) == (3, 3)
    assert compared["metrics"] == [
        {"name": "loss", "reference": 1.0, "interrupted": 1.0, "is_near": True}
    ]
    job = ok(desk.http.post("/v1/jobs", json={**SPEC, "name": "mine"}, headers=desk.admin))
    assert job["resume"]["verdict"] == "exact"
    assert job["resume"]["verification_id"] == asked["id"]
    assert desk.get(f"/v1/jobs/{asked['reference_job_id']}")["resume"]["verdict"] == "exact"
    other = {**SPEC, "config": {"epochs": 4}}
    shown = ok(desk.http.post("/v1/jobs", json=other, headers=desk.admin))["resume"]
    assert (shown["verdict"], shown["reason"]) == ("unknown", "NotVerified")


def test_the_kill_is_owned_up_to_and_no_node_is_blamed(desk: Desk, play: Play) -> None:
    asked = play.ask()
    play.run_reference(asked, FILES)
    play.run_interrupted(asked, FILES)

    job_id = play.read(asked)["interrupted_job_id"]
    first = desk.get(f"/v1/jobs/{job_id}/attempts")["data"][0]
    assert first["reason"] == "KilledToVerify"
    assert "on purpose" in first["message"]
    with desk.database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.user_failures, job.infra_failures, job.state.value) == (0, 1, "succeeded")
        assert session.query(NodeFault).all() == []


@pytest.mark.parametrize(
    ("other", "metrics", "first_step", "verdict", "reason"),
    [
        pytest.param(
            {**FILES, "meta.json": meta(metrics={"s": 3.0}, versions={"torch": "9"})},
            {"loss": 1.0}, None, "exact", "SameFiles",
            id="metrics and versions in meta.json are no state",
        ),
        pytest.param(
            {**FILES, "meta.json": meta(facts={"a": 1})},
            {"loss": 1.0}, None, "equivalent", "MetricsAgree",
            id="facts are",
        ),
        pytest.param(
            {**FILES, "state.pt": b"other"},
            {"loss": 1.04}, None, "equivalent", "MetricsAgree",
            id="other bits within the tolerance",
        ),
        pytest.param(
            {**FILES, "state.pt": b"other"},
            {"loss": 2.0}, None, "unknown", "MetricsDiffer",
            id="other bits beyond it",
        ),
        pytest.param(
            {**FILES, "state.pt": b"other"},
            {"loss": "NaN"}, None, "unknown", "MetricsDiffer",
            id="a loss that is none",
        ),
        pytest.param(FILES, {"loss": 1.0}, 1, "unknown", "StartedAgain", id="it began again"),
    ],
)  # fmt: skip
def test_what_is_left_decides(
    play: Play,
    other: dict[str, bytes],
    metrics: dict[str, Any],
    first_step: int | None,
    verdict: str,
    reason: str,
) -> None:
    asked = play.ask(seed=4)
    play.run_reference(asked, FILES, loss=1.0)
    assert play.read(asked)["interruption"]["save_at_step"] > 1

    play.run_interrupted(asked, other, first_step=first_step, **metrics)

    found = play.read(asked)
    assert (found["verdict"], found["reason"]) == (verdict, reason), found["message"]


def test_an_attempt_that_is_lost_before_it_saves_is_not_the_kill(play: Play) -> None:
    asked = play.ask()
    play.run_reference(asked, FILES)
    lost = play.take(play.read(asked)["interrupted_job_id"])
    ok(lost.exit("failed", "NodeFailure"))

    play.run_interrupted(asked, FILES)

    assert play.read(asked)["verdict"] == "exact"


def test_weights_alone_are_told_from_a_state(play: Play) -> None:
    asked = play.ask()
    play.run_reference(asked, {"model.safetensors": b"a"}, loss=1.0)
    play.run_interrupted(asked, {"model.safetensors": b"b"}, loss=1.0)

    assert play.read(asked)["verdict"] == "weights-only"


def test_one_that_is_never_killed_proves_nothing(play: Play) -> None:
    asked = play.ask()
    play.run_reference(asked, FILES)
    supervisor = play.take(play.read(asked)["interrupted_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")
    play.look()

    found = play.read(asked)
    assert (found["verdict"], found["reason"]) == ("unknown", "NotInterrupted")


def test_too_few_steps_are_told(desk: Desk, play: Play) -> None:
    asked = play.ask()
    supervisor = play.take(asked["reference_job_id"])
    supervisor.save(2, FILES)
    supervisor.exit("succeeded")
    play.look()

    assert play.read(asked)["reason"] == "TooFewSteps"


def test_a_verdict_stands_until_something_else_was_seen(desk: Desk, play: Play) -> None:
    first, failed, newer = play.ask(), play.ask(), play.ask()
    play.run_reference(first, FILES)
    play.run_interrupted(first, FILES)
    play.take(failed["reference_job_id"]).exit("failed", "UserCodeError")
    play.look()
    job = f"/v1/jobs/{first['reference_job_id']}"

    after_failure = desk.get(job)["resume"]
    play.run_reference(newer, FILES, loss=1.0)
    play.run_interrupted(newer, {**FILES, "state.pt": b"b"}, loss=1.0)

    assert (after_failure["verdict"], after_failure["verification_id"]) == ("exact", first["id"])
    shown = desk.get(job)["resume"]
    assert (shown["verdict"], shown["verification_id"]) == ("equivalent", newer["id"])


def test_the_same_request_twice_is_one_verification(desk: Desk, play: Play) -> None:
    headers = {**desk.admin, "idempotency-key": "one"}
    path = "/v1/jobs/verify-resume"

    first = desk.http.post(path, json=SPEC, headers=headers)
    again = desk.http.post(path, json=SPEC, headers=headers)
    other = desk.http.post(path, json=SPEC, params={"seed": 1}, headers=headers)

    assert ok(first) == ok(again)
    assert first.headers["location"] == f"/v1/verifications/{ok(first)['id']}"
    assert problem(other, 422) == "idempotency_mismatch"
    assert len(desk.get("/v1/jobs")["data"]) == 1


def test_others_see_nothing_of_it_and_a_bad_spec_is_told_whole(desk: Desk, play: Play) -> None:
    asked = play.ask()
    foreign = desk.add_project("others")

    answer = desk.http.get(f"/v1/verifications/{asked['id']}", headers=foreign)
    listed = desk.http.get("/v1/verifications", headers=foreign)
    refused = desk.http.post(
        "/v1/jobs/verify-resume", json={"recipe": "x", "wrkers": 1}, headers=desk.admin
    )

    assert problem(answer, 404) == "not_found"
    assert listed.json()["data"] == []
    assert [each["id"] for each in desk.get("/v1/verifications")["data"]] == [asked["id"]]
    assert problem(refused, 422) == "invalid_spec"
    assert len(refused.json()["errors"]) == 2
