"""Changing jobs: edits, actions, new jobs from old ones, removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from models import Attempt, Base, Checkpoint, Event, Job
from models.queries.jobs import advance_job, node_topic
from scheduler.core.states import JobEvent
from tests.app_client import AppClient
from tests.factories import NOW, add_checkpoint, add_node, job_document, start_job


def _start(client: AppClient, job_id: str, *, is_joined: bool = True) -> str:
    with client.database.write() as session:
        return start_job(session, job_id, add_node(session), is_joined=is_joined).id


def _advance(client: AppClient, job_id: str, *events: JobEvent) -> None:
    with client.database.write() as session:
        for event in events:
            advance_job(session, session.get_one(Job, job_id), event, reason="Test", now=NOW)


def _finish(client: AppClient, job_id: str) -> None:
    with client.database.write() as session:
        attempt = session.scalars(select(Attempt).where(Attempt.job_id == job_id)).one()
        attempt.ended_at = NOW
    _advance(client, job_id, JobEvent.CODE_ENDED, JobEvent.SUCCEEDED)


def _history(client: AppClient, job_id: str) -> list[str]:
    events = client.get(f"/v1/jobs/{job_id}/events?limit=100").json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event["type"] for event in events]


class TestEditing:
    """PATCH is a merge patch; `If-Match` names the version it is for."""

    def test_what_is_left_out_stays(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document(name="a", labels={"x": "1", "y": "2"}))
        patch = {"priority": 80, "labels": {"x": None, "z": "3"}}

        answer = app_client.patch(f"/v1/jobs/{job['id']}", json=patch)

        changed = answer.json()
        assert (changed["name"], changed["priority"]) == ("a", 80)
        assert changed["labels"] == {"y": "2", "z": "3"}
        assert changed["version"] == 2
        assert changed["spec"] == job["spec"]
        assert app_client.get(f"/v1/jobs/{job['id']}").json() == changed
        assert _history(app_client, job["id"]) == ["job.pending", "job.edited"]

    @pytest.mark.parametrize(
        "patch", [{}, {"priority": 50}, {"labels": {}}, {"labels": {"q": None}}]
    )
    def test_a_change_of_nothing_is_no_event(
        self, app_client: AppClient, patch: dict[str, Any]
    ) -> None:
        job = app_client.submit(job_document())

        answer = app_client.patch(f"/v1/jobs/{job['id']}", json=patch)

        assert (answer.status_code, answer.json()["version"]) == (200, 1)

    def test_only_the_version_that_was_read_is_changed(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        path = f"/v1/jobs/{job['id']}"
        etag = app_client.get(path).headers["etag"]

        first = app_client.patch(path, json={"priority": 1}, headers={"if-match": etag})
        second = app_client.patch(path, json={"priority": 2}, headers={"if-match": etag})
        any_version = app_client.patch(path, json={"priority": 3}, headers={"if-match": "*"})

        assert first.status_code == 200
        assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")
        assert any_version.json()["priority"] == 3

    def test_progress_does_not_stand_in_the_way_of_an_edit(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        path = f"/v1/jobs/{job['id']}"
        attempt_id = _start(app_client, job["id"])
        etag = app_client.get(path).headers["etag"]
        with app_client.database.write() as session:
            session.get_one(Attempt, attempt_id).progress = {"step": 9}

        answer = app_client.patch(path, json={"name": "new"}, headers={"if-match": etag})

        assert answer.status_code == 200

    def test_an_ended_job_keeps_its_priority_and_takes_labels(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        app_client.post(f"/v1/jobs/{job['id']}/cancel")
        path = f"/v1/jobs/{job['id']}"

        assert app_client.patch(path, json={"priority": 1}).status_code == 409
        assert app_client.patch(path, json={"labels": {"kept": "yes"}}).status_code == 200

    def test_labels_do_not_grow_beyond_64(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document(labels={f"k{n}": "v" for n in range(64)}))

        answer = app_client.patch(f"/v1/jobs/{job['id']}", json={"labels": {"one": "more"}})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/labels"


Setup = Callable[[AppClient, str], object]


def _waiting(client: AppClient, job_id: str) -> None:
    """Leave it as it is."""


def _running(client: AppClient, job_id: str) -> None:
    _start(client, job_id)


def _starting(client: AppClient, job_id: str) -> None:
    _start(client, job_id, is_joined=False)


def _paused(client: AppClient, job_id: str) -> None:
    client.post(f"/v1/jobs/{job_id}/pause")


def _cancelled(client: AppClient, job_id: str) -> None:
    client.post(f"/v1/jobs/{job_id}/cancel")


def _ended(client: AppClient, job_id: str) -> None:
    _start(client, job_id)
    _finish(client, job_id)


def _pausing(client: AppClient, job_id: str) -> None:
    _start(client, job_id)
    client.post(f"/v1/jobs/{job_id}/pause")


@pytest.mark.parametrize(
    ("setup", "action", "status", "state", "reason"),
    [
        (_waiting, "cancel", 200, "cancelled", "CancelledByUser"),
        (_waiting, "pause", 200, "paused", "PausedByUser"),
        (_waiting, "resume", 200, "pending", "Submitted"),
        (_waiting, "checkpoint", 409, "pending", "Submitted"),
        (_waiting, "fork", 409, "pending", "Submitted"),
        (_starting, "cancel", 200, "stopping", "CancelRequested"),
        (_starting, "pause", 200, "stopping", "PauseRequested"),
        (_starting, "hold", 409, "starting", "Launching"),
        (_starting, "checkpoint", 409, "starting", "Launching"),
        (_running, "cancel", 200, "stopping", "CancelRequested"),
        (_running, "pause", 200, "stopping", "PauseRequested"),
        (_running, "resume", 200, "running", "Training"),
        (_running, "release", 409, "running", "Training"),
        (_running, "checkpoint", 200, "running", "Training"),
        (_pausing, "cancel", 200, "stopping", "CancelRequested"),
        (_pausing, "pause", 200, "stopping", "PauseRequested"),
        (_pausing, "resume", 409, "stopping", "PauseRequested"),
        (_paused, "cancel", 200, "cancelled", "CancelledByUser"),
        (_paused, "pause", 200, "paused", "PausedByUser"),
        (_paused, "resume", 200, "pending", "Resumed"),
        (_paused, "hold", 409, "paused", "PausedByUser"),
        (_cancelled, "cancel", 200, "cancelled", "CancelledByUser"),
        (_cancelled, "pause", 409, "cancelled", "CancelledByUser"),
        (_cancelled, "resume", 409, "cancelled", "CancelledByUser"),
        (_ended, "cancel", 409, "succeeded", "Test"),
        (_ended, "pause", 409, "succeeded", "Test"),
        (_ended, "checkpoint", 409, "succeeded", "Test"),
    ],
)
def test_what_an_action_does_depends_on_the_state(
    app_client: AppClient, setup: Setup, action: str, status: int, state: str, reason: str
) -> None:
    job_id = app_client.submit(job_document())["id"]
    setup(app_client, job_id)

    answer = app_client.post(f"/v1/jobs/{job_id}/{action}")

    assert answer.status_code == status, answer.text
    job = app_client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["reason"]) == (state, reason)
    if status == 200:
        assert answer.json() == job
    else:
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("action", ["cancel", "pause", "hold"])
def test_asking_twice_does_no_more_than_once(app_client: AppClient, action: str) -> None:
    job_id = app_client.submit(job_document())["id"]
    first = app_client.post(f"/v1/jobs/{job_id}/{action}")

    second = app_client.post(f"/v1/jobs/{job_id}/{action}")

    assert second.status_code == 200
    assert second.json() == first.json()


def test_a_held_job_is_released(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]

    held = app_client.post(f"/v1/jobs/{job_id}/hold").json()
    released = app_client.post(f"/v1/jobs/{job_id}/release").json()

    assert (held["held"], released["held"]) == (True, False)
    assert _history(app_client, job_id) == ["job.pending", "job.held", "job.released"]


def test_a_stop_is_told_to_the_nodes_and_remembers_who_asked(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]
    attempt_id = _start(app_client, job_id)
    with app_client.database.read() as session:
        node_id = session.scalars(select(Base.metadata.tables["attempt_nodes"].c.node_id)).one()
    doorbell = app_client.database.doorbell
    since = doorbell.count(node_topic(node_id))

    app_client.post(f"/v1/jobs/{job_id}/cancel")

    assert doorbell.count(node_topic(node_id)) > since
    with app_client.database.read() as session:
        assert session.get_one(Job, job_id).stop_reason == "CancelRequested"
        assert session.get_one(Attempt, attempt_id).ended_at is None


def test_each_checkpoint_wish_is_a_new_one_unless_it_is_the_same_request(
    app_client: AppClient,
) -> None:
    job_id = app_client.submit(job_document())["id"]
    _start(app_client, job_id)
    path = f"/v1/jobs/{job_id}/checkpoint"

    app_client.post(path)
    app_client.post(path, headers={"idempotency-key": "k"})
    replayed = app_client.post(path, headers={"idempotency-key": "k"})

    assert replayed.headers["idempotency-replayed"] == "true"
    with app_client.database.read() as session:
        assert session.get_one(Job, job_id).checkpoint_serial == 2


class TestNewFromOld:
    """Fork goes on from a checkpoint, rerun begins again; both are new jobs."""

    @pytest.fixture
    def ended(self, app_client: AppClient) -> tuple[str, str, str]:
        """A finished job with two checkpoints: its id, the older and the newer one."""
        document = job_document(name="parent", labels={"a": "b"}, hold=True)
        job_id = app_client.submit(document)["id"]
        attempt_id = _start(app_client, job_id)
        with app_client.database.write() as session:
            attempt = session.get_one(Attempt, attempt_id)
            older = add_checkpoint(session, attempt, step=10)
            newer = add_checkpoint(session, attempt, step=20)
            add_checkpoint(session, attempt, step=30, state="uploading")
        _finish(app_client, job_id)
        return job_id, older, newer

    def test_a_fork_starts_from_the_newest_checkpoint(
        self, app_client: AppClient, ended: tuple[str, str, str]
    ) -> None:
        job_id, _, newer = ended

        answer = app_client.post(f"/v1/jobs/{job_id}/fork")

        assert answer.status_code == 201
        fork = answer.json()
        assert fork["id"] != job_id
        assert answer.headers["location"] == f"/v1/jobs/{fork['id']}"
        assert fork["parent_job_id"] == job_id
        assert fork["spec"]["resume_from"] == newer
        assert (fork["name"], fork["labels"], fork["held"]) == ("parent", {"a": "b"}, False)

    def test_a_fork_may_differ(self, app_client: AppClient, ended: tuple[str, str, str]) -> None:
        job_id, older, _ = ended
        overrides = {"config": {"epochs": 9, "lr": 0.1}, "labels": None, "name": "child"}

        fork = app_client.post(
            f"/v1/jobs/{job_id}/fork", json={"checkpoint": older, "overrides": overrides}
        ).json()

        assert fork["spec"]["resume_from"] == older
        assert fork["spec"]["config"] == {"epochs": 9, "lr": 0.1}
        assert (fork["name"], fork["labels"]) == ("child", {})

    def test_a_fork_is_checked_like_any_spec(
        self, app_client: AppClient, ended: tuple[str, str, str]
    ) -> None:
        answer = app_client.post(
            f"/v1/jobs/{ended[0]}/fork", json={"overrides": {"config": {"epcohs": 1}, "x": 1}}
        )

        pointers = {error["pointer"] for error in answer.json()["errors"]}
        assert (answer.status_code, pointers) == (422, {"/config/epcohs", "/x"})

    def test_a_checkpoint_of_another_job_is_none_of_this_one(
        self, app_client: AppClient, ended: tuple[str, str, str]
    ) -> None:
        other = app_client.submit(job_document())["id"]

        answer = app_client.post(f"/v1/jobs/{other}/fork", json={"checkpoint": ended[2]})

        assert answer.status_code == 404

    def test_a_rerun_does_the_same_from_the_beginning(
        self, app_client: AppClient, ended: tuple[str, str, str]
    ) -> None:
        job_id = ended[0]
        headers = {"idempotency-key": "again"}

        first = app_client.post(f"/v1/jobs/{job_id}/rerun", headers=headers)
        again = app_client.post(f"/v1/jobs/{job_id}/rerun", headers=headers)

        rerun = first.json()
        assert again.json() == rerun
        assert (rerun["parent_job_id"], rerun["spec"]["resume_from"]) == (job_id, None)
        assert rerun["spec"]["config"] == {"epochs": 3}
        assert (rerun["state"], rerun["held"]) == ("pending", False)


class TestRemoval:
    """DELETE takes an ended job away with everything that belongs to it."""

    def test_nothing_of_it_stays(self, app_client: AppClient) -> None:
        job_id = app_client.submit(job_document())["id"]
        kept = app_client.submit(job_document())["id"]
        attempt_id = _start(app_client, job_id)
        with app_client.database.write() as session:
            checkpoint_id = add_checkpoint(session, session.get_one(Attempt, attempt_id))
        folder = app_client.config.storage_dir / "checkpoints" / checkpoint_id
        folder.mkdir(parents=True)
        (folder / ("0" * 64)).write_bytes(b"weights")
        _finish(app_client, job_id)

        answer = app_client.delete(f"/v1/jobs/{job_id}")

        assert (answer.status_code, answer.content) == (204, b"")
        assert app_client.get(f"/v1/jobs/{job_id}").status_code == 404
        assert app_client.delete(f"/v1/jobs/{job_id}").status_code == 404
        assert not folder.exists()
        with app_client.database.read() as session:
            assert session.scalars(select(Job.id)).all() == [kept]
            assert set(session.scalars(select(Event.job_id))) == {kept}
            for table in (Attempt, Checkpoint):
                assert session.scalar(select(func.count()).select_from(table)) == 0

    @pytest.mark.parametrize("setup", [_waiting, _running, _paused])
    def test_a_job_that_has_not_ended_stays(self, app_client: AppClient, setup: Setup) -> None:
        job_id = app_client.submit(job_document())["id"]
        setup(app_client, job_id)

        answer = app_client.delete(f"/v1/jobs/{job_id}")

        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
        assert app_client.get(f"/v1/jobs/{job_id}").status_code == 200

    def test_a_job_whose_child_still_needs_its_checkpoint_stays(
        self, app_client: AppClient
    ) -> None:
        job_id = app_client.submit(job_document())["id"]
        attempt_id = _start(app_client, job_id)
        with app_client.database.write() as session:
            add_checkpoint(session, session.get_one(Attempt, attempt_id))
        _finish(app_client, job_id)
        child = app_client.post(f"/v1/jobs/{job_id}/fork").json()["id"]

        refused = app_client.delete(f"/v1/jobs/{job_id}")
        app_client.post(f"/v1/jobs/{child}/cancel")

        assert (refused.status_code, refused.json()["code"]) == (409, "job_in_use")
        assert app_client.delete(f"/v1/jobs/{job_id}").status_code == 204

    def test_only_the_version_that_was_read_is_removed(self, app_client: AppClient) -> None:
        job_id = app_client.submit(job_document())["id"]
        etag = app_client.get(f"/v1/jobs/{job_id}").headers["etag"]
        app_client.post(f"/v1/jobs/{job_id}/cancel")

        answer = app_client.delete(f"/v1/jobs/{job_id}", headers={"if-match": etag})

        assert answer.status_code == 412
