"""Verifications that end early, that cannot be carried on, or that nobody's fault holds up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from api.verification.loop import FAILING_FOR, FAILURES_MAX
from models import Job, Verification
from models.queries.jobs import advance_job
from models.queries.verifications import touch
from scheduler.core.errors import NotFound, OutOfStorage
from scheduler.core.states import JobEvent
from tests.component.api_data.desk import Desk, ok
from tests.component.api_data.verified import FILES, LAST_STEP, SPEC, Play


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
