"""Verifications over HTTP, with supervisors that the test plays and the loop run by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from api.jobs.desk import open_desk
from api.verification.loop import FAILING_FOR, FAILURES_MAX, Verifier
from models import Job, NodeFault, Verification
from models.queries.jobs import advance_job
from models.queries.verifications import touch
from scheduler.core.errors import NotFound, OutOfStorage
from scheduler.core.states import JobEvent
from tests.component.api_data.desk import Desk, NodeDesk, Supervisor, ok, problem

SPEC = {"recipe": "image-classifier", "workers": 1, "config": {"epochs": 3}}
META: dict[str, Any] = {"format": 1, "step": 20, "world_size": 1, "models": ["model"], "facts": {}}
LAST_STEP = 20


def meta(**changes: Any) -> bytes:
    """Return the meta.json of a checkpoint."""
    return json.dumps({**META, "metrics": {}, "versions": {}, **changes}).encode()


FILES = {"model.safetensors": b"weights", "state.pt": b"state", "meta.json": meta()}


class Play:
    """A verification, step by step."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.node = desk, desk.join()
        self.verifier = self.restarted()

    def restarted(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Verifier:
        """Return the loop as it is after a restart of the service: it remembers nothing."""
        desk = open_desk(self.desk.config, self.desk.database)
        return Verifier(desk, self.desk.storage, clock, poll_s=1)

    def ask(self, spec: dict[str, Any] = SPEC, **query: Any) -> dict[str, Any]:
        """Ask for a verification."""
        answer = self.desk.http.post(
            "/v1/jobs/verify-resume", json=spec, params=query, headers=self.desk.admin
        )
        asked: dict[str, Any] = ok(answer)
        return asked

    def read(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is now."""
        found: dict[str, Any] = self.desk.get(f"/v1/verifications/{asked['id']}")
        return found

    def look(self) -> None:
        """Let the loop look twice, as after a lost message: the second look changes nothing."""
        self.verifier.run_once()
        before = self.rows()
        self.restarted().run_once()
        assert self.rows() == before

    def rows(self) -> tuple[list[str], list[int]]:
        """Return the jobs, and the versions of the verifications."""
        with self.desk.database.read() as session:
            jobs = [job.id for job in session.query(Job).order_by(Job.id)]
            rows = session.query(Verification).order_by(Verification.id)
            return jobs, [row.version for row in rows]

    def take(self, job_id: str) -> Supervisor:
        """Start a job's next attempt."""
        self.desk.schedule()
        return take(self.node, job_id)

    def run_reference(self, asked: dict[str, Any], files: dict[str, bytes], **metrics: Any) -> None:
        """Let the job that nobody disturbs succeed."""
        supervisor = self.take(asked["reference_job_id"])
        assert supervisor.assignment()["interruption"] is None
        supervisor.save(LAST_STEP, files, metrics)
        ok(supervisor.exit("succeeded"))
        self.look()

    def run_interrupted(
        self, asked: dict[str, Any], files: dict[str, bytes], *, first_step: int | None = None,
        **metrics: Any,
    ) -> None:  # fmt: skip
        """Let the other job be killed, resume and succeed."""
        found = self.read(asked)
        job_id, plan = found["interrupted_job_id"], found["interruption"]
        supervisor = self.take(job_id)
        assert supervisor.assignment()["interruption"] == plan
        supervisor.save(plan["save_at_step"], {"model.safetensors": b"half"})
        ok(killed(supervisor, plan["kill_at_step"]))
        again = self.take(job_id)
        assert again.assignment()["interruption"] is None
        assert again.assignment()["resume"]["step"] == plan["save_at_step"]
        if first_step is not None:
            ok(again.measure(0, {"loss": [(first_step, 1.0)]}))
        again.save(LAST_STEP, files, metrics)
        ok(again.exit("succeeded"))
        self.look()


def take(node: NodeDesk, job_id: str) -> Supervisor:
    """Return the supervisor of the newest attempt of a job."""
    node.supervisors.clear()
    return node.take(job_id)


def killed(supervisor: Supervisor, step: int) -> Any:
    """Report that a rank was killed with SIGKILL."""
    rank = {"rank": 0, "code": None, "signal": 9, "class": "infra", "last_step": step}
    message = "rank 0 was killed by SIGKILL, not sent by Trainmaster"
    return supervisor.exit("failed", "RankKilled", ranks=[rank], message=message)


@pytest.fixture
def play(desk: Desk) -> Play:
    """A node, and the loop."""
    return Play(desk)


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


def test_a_job_of_it_that_ends_badly_ends_it_with_the_reason(desk: Desk, play: Play) -> None:
    failing, cancelled, bare = play.ask(), play.ask(), play.ask()
    desk.http.post(f"/v1/jobs/{cancelled['reference_job_id']}/cancel", headers=desk.admin)
    supervisor = play.take(failing["reference_job_id"])
    supervisor.exit("failed", "UserCodeError", message="rank 0 exited with code 1: boom")
    play.take(bare["reference_job_id"]).exit("succeeded")

    play.look()

    said = {each["id"]: play.read(each) for each in (failing, cancelled, bare)}
    assert {each["verdict"] for each in said.values()} == {"unknown"}
    assert said[failing["id"]]["reason"] == "JobFailed"
    assert "boom" in said[failing["id"]]["message"]
    assert said[cancelled["id"]]["reason"] == "JobCancelled"
    assert said[bare["id"]]["reason"] == "NoCheckpoint"


def test_it_is_called_off_by_cancelling_and_a_deleted_job_ends_it(desk: Desk, play: Play) -> None:
    first, second = play.ask(), play.ask({**SPEC, "config": {"epochs": 5}})

    called_off = desk.http.post(f"/v1/verifications/{first['id']}/cancel", headers=desk.admin)
    supervisor = play.take(second["reference_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")
    desk.http.delete(f"/v1/jobs/{second['reference_job_id']}", headers=desk.admin)
    play.look()

    assert ok(called_off)["id"] == first["id"]
    assert play.read(first)["reason"] == "JobCancelled"
    assert play.read(second)["reason"] == "JobDeleted"
    again = ok(desk.http.post(f"/v1/verifications/{first['id']}/cancel", headers=desk.admin))
    assert again == play.read(first)


def test_one_that_is_called_off_between_its_jobs_ends_at_once(desk: Desk, play: Play) -> None:
    asked = play.ask()
    supervisor = play.take(asked["reference_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")

    path = f"/v1/verifications/{asked['id']}/cancel"
    called_off = ok(desk.http.post(path, headers=desk.admin))
    play.look()

    assert (called_off["state"], called_off["reason"]) == ("finished", "JobCancelled")
    assert called_off["interrupted_job_id"] is None
    assert play.read(asked) == called_off
    assert play.rows()[0] == [asked["reference_job_id"]]


def test_one_whose_job_is_on_its_last_way_is_called_off_all_the_same(
    desk: Desk, play: Play
) -> None:
    asked = play.ask()
    supervisor = play.take(asked["reference_job_id"])
    with desk.database.write() as session:
        job = session.get_one(Job, asked["reference_job_id"])
        reason = "UploadingArtifacts"
        advance_job(session, job, JobEvent.CODE_ENDED, reason=reason, now=datetime.now(UTC))

    path = f"/v1/verifications/{asked['id']}/cancel"
    called_off = ok(desk.http.post(path, headers=desk.admin))
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")
    play.look()

    assert called_off["reason"] == "JobCancelled"
    assert play.read(asked) == called_off


def _break(desk: Desk, play: Play, asked: dict[str, Any]) -> None:
    """Let every look at a verification fail, by a spec that lacks what all have."""
    with desk.database.write() as session:
        verification = session.get_one(Verification, asked["id"])
        spec = {name: value for name, value in verification.spec.items() if name != "resume_from"}
        verification.spec = spec
        touch(session, verification)
    supervisor = play.take(asked["reference_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")


def test_what_cannot_be_carried_on_is_given_up_and_keeps_nobody_waiting(
    desk: Desk, play: Play
) -> None:
    broken = play.ask()
    _break(desk, play, broken)

    now = datetime.now(UTC)
    verifier = play.restarted(lambda: now)
    for _ in range(2 * FAILURES_MAX):
        assert verifier.run_once() == 1
    now += FAILING_FOR
    num_open = verifier.run_once()

    found = play.read(broken)
    assert num_open == 0
    assert (found["verdict"], found["reason"]) == ("unknown", "GivenUp")
    assert "KeyError" in found["message"]


def test_giving_one_up_that_somebody_else_has_changed_holds_nobody_up(
    desk: Desk, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = play.ask(), play.ask({**SPEC, "config": {"epochs": 5}})
    _break(desk, play, broken)
    now = datetime.now(UTC)
    verifier = play.restarted(lambda: now)
    for _ in range(FAILURES_MAX):
        verifier.run_once()
    now += FAILING_FOR
    supervisor = play.take(fine["reference_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")

    def lose(*_: object, **__: object) -> bool:
        raise StaleDataError("another process was faster")

    with monkeypatch.context() as patch:
        patch.setattr("api.verification.loop.conclude", lose)
        num_open = verifier.run_once()

    assert num_open == 2
    assert play.read(fine)["state"] == "interrupted"
    verifier.run_once()
    assert play.read(broken)["reason"] == "GivenUp"


def test_one_that_fails_and_is_called_off_is_forgotten(desk: Desk, play: Play) -> None:
    broken = play.ask()
    _break(desk, play, broken)
    play.verifier.run_once()
    failing = play.verifier.failing_ids

    ok(desk.http.post(f"/v1/verifications/{broken['id']}/cancel", headers=desk.admin))
    play.verifier.run_once()

    assert failing == {broken["id"]}
    assert play.verifier.failing_ids == frozenset()


def test_a_disk_that_is_full_is_no_verdict(
    desk: Desk, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = play.ask()
    supervisor = play.take(asked["reference_job_id"])
    supervisor.save(LAST_STEP, FILES)
    supervisor.exit("succeeded")
    now = datetime.now(UTC)
    verifier = play.restarted(lambda: now)

    def fail(*_: object, **__: object) -> None:
        raise OutOfStorage("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("api.verification.carry_on.store_job", fail)
        for _ in range(2 * FAILURES_MAX):
            assert verifier.run_once() == 1
            now += FAILING_FOR
    verifier.run_once()

    assert play.read(asked)["state"] == "interrupted"


def test_a_second_job_that_is_refused_for_good_ends_it(
    desk: Desk, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = play.ask()

    def refuse(*_: object, **__: object) -> None:
        raise NotFound("this project")

    monkeypatch.setattr("api.verification.carry_on.store_job", refuse)
    play.run_reference(asked, FILES)

    found = play.read(asked)
    assert (found["reason"], found["interrupted_job_id"]) == ("Refused", None)
    assert "this project does not exist" in found["message"]


def test_a_database_that_is_away_is_no_verdict(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = play.ask()

    def fail(*_: object, **__: object) -> bool:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    with monkeypatch.context() as patch:
        patch.setattr("api.verification.loop.carry_on", fail)
        for _ in range(FAILURES_MAX + 1):
            with pytest.raises(OperationalError):
                play.verifier.run_once()

    assert play.read(asked)["state"] == "reference"


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
