"""Quotas, queues and usage over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models import Allocation, Attempt, Job, Project, UsageMonth, UsageShare
from models.queries.jobs import JOBS_TOPIC
from scheduler.core.policy import DEFAULT_POLICY
from tests.app_client import AppClient
from tests.factories import add_node, job_document, start_job

HOUR_MS = 3_600_000
TWO_GPUS = [
    {"index": index, "uuid": f"GPU-{index}", "model": "H200", "memory_mib": 143_360}
    for index in range(2)
]
ON_GPUS = job_document(workers=1, resources={"gpus": 2})


def _make(client: AppClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/quotas", json={"project": "default", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _start_on_gpus(client: AppClient, *, ago: timedelta) -> str:
    """Let a job run that has held two GPUs for a while; return its id."""
    with client.database.write() as session:
        capacity = {"cpu_milli": 8000, "memory_mib": 8192, "gpus": TWO_GPUS}
        node_id = add_node(session, capacity=capacity).id
    job_id: str = client.submit(ON_GPUS)["id"]
    with client.database.write() as session:
        attempt = start_job(session, job_id, add_node(session, "other"))
        attempt.created_at = datetime.now(UTC) - ago
        session.add_all(
            Allocation(attempt_id=attempt.id, node_id=node_id, gpu_index=index) for index in (0, 1)
        )
    return job_id


def _key_id(client: AppClient) -> str:
    job_id = client.submit(job_document())["id"]
    with client.database.read() as session:
        return session.get_one(Job, job_id).created_by or ""


class TestQuotas:
    """Set by admins, for a project or one user of it; seen by the project."""

    def test_a_quota_is_made_read_changed_and_taken_away(self, app_client: AppClient) -> None:
        answer = app_client.post("/v1/quotas", json={"project": "default", "guaranteed_gpus": 8})
        made = answer.json()
        path = answer.headers["location"]

        assert answer.status_code == 201
        assert (made["user"], made["weight"], made["limit_gpus"]) == (None, 1, None)
        assert made["in_use"] == {"gpus": 0, "gpu_hours_this_month": 0.0}
        assert app_client.get(path).json() == made
        assert app_client.get("/v1/quotas").json()["data"] == [made]

        since = app_client.database.doorbell.count(JOBS_TOPIC)
        changed = app_client.patch(path, json={"limit_gpus": 16, "weight": 2}).json()

        assert (changed["limit_gpus"], changed["weight"], changed["version"]) == (16, 2, 2)
        assert app_client.database.doorbell.count(JOBS_TOPIC) > since
        assert app_client.patch(path, json={"limit_gpus": None}).json()["limit_gpus"] is None
        assert app_client.patch(path, json={"weight": 2}).json()["version"] == 3
        assert app_client.delete(path).status_code == 204
        assert app_client.get(path).status_code == 404

    def test_each_project_and_each_user_has_one(self, app_client: AppClient) -> None:
        key_id = _key_id(app_client)
        _make(app_client)
        of_user = _make(app_client, user=key_id)

        again = app_client.post("/v1/quotas", json={"project": "default"})
        again_of_user = app_client.post("/v1/quotas", json={"project": "default", "user": key_id})

        assert (again.status_code, again.json()["code"]) == (409, "quota_exists")
        assert again_of_user.status_code == 409
        assert of_user["id"] in again_of_user.json()["detail"]

    def test_the_same_request_twice_makes_one(self, app_client: AppClient) -> None:
        headers = {"idempotency-key": "once"}
        body = {"project": "default"}

        first = app_client.post("/v1/quotas", json=body, headers=headers)
        second = app_client.post("/v1/quotas", json=body, headers=headers)

        assert first.json() == second.json()
        assert second.headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/project"),
            ({"project": "nowhere"}, "/project"),
            ({"project": "default", "user": "key_x"}, "/user"),
            ({"project": "default", "weight": 0}, "/weight"),
            ({"project": "default", "guaranteed_gpus": -1}, "/guaranteed_gpus"),
            ({"project": "default", "priority_max": 101}, "/priority_max"),
            ({"project": "default", "gpu_hours_per_month": -0.5}, "/gpu_hours_per_month"),
            ({"project": "default", "guaranteed_gpus": 9, "limit_gpus": 8}, "/limit_gpus"),
            ({"project": "default", "gpus": 8}, "/gpus"),
        ],
    )
    def test_quotas_that_cannot_be(
        self, app_client: AppClient, body: dict[str, object], pointer: str
    ) -> None:
        answer = app_client.post("/v1/quotas", json=body)

        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]

    def test_a_change_that_cannot_be_changes_nothing(self, app_client: AppClient) -> None:
        made = _make(app_client, guaranteed_gpus=8)
        path = f"/v1/quotas/{made['id']}"

        answers = [
            app_client.patch(path, json=patch)
            for patch in ({"limit_gpus": 4}, {"weight": None}, {"project": "x"}, {"weight": "2"})
        ]

        assert [answer.status_code for answer in answers] == [422] * 4
        assert app_client.get(path).json() == made

    def test_an_etag_names_the_version_that_was_read(self, app_client: AppClient) -> None:
        path = f"/v1/quotas/{_make(app_client)['id']}"
        etag = app_client.get(path).headers["etag"]

        first = app_client.patch(path, json={"weight": 2}, headers={"if-match": etag})
        second = app_client.patch(path, json={"weight": 3}, headers={"if-match": etag})
        deleted = app_client.delete(path, headers={"if-match": etag})

        assert [first.status_code, second.status_code, deleted.status_code] == [200, 412, 412]
        assert app_client.get(path).json()["weight"] == 2

    def test_members_see_their_own_and_change_none(self, app_client: AppClient) -> None:
        app_client.make_project("vision")
        mine = _make(app_client, project="vision")
        others = _make(app_client)
        member = app_client.with_key(app_client.make_key("member", "vision"))

        assert [one["id"] for one in member.get("/v1/quotas").json()["data"]] == [mine["id"]]
        assert member.get(f"/v1/quotas/{others['id']}").status_code == 404
        assert member.patch(f"/v1/quotas/{mine['id']}", json={"weight": 9}).status_code == 403
        assert member.post("/v1/quotas", json={"project": "vision"}).status_code == 403
        assert member.delete(f"/v1/quotas/{mine['id']}").status_code == 403

    def test_what_runs_is_in_use(self, app_client: AppClient) -> None:
        # Within the month, whatever day it is.
        _start_on_gpus(app_client, ago=timedelta(0))
        quota = _make(app_client)
        with app_client.database.write() as session:
            project_id = session.scalars(select(Project.id)).one()
            month = f"{datetime.now(UTC):%Y-%m}"
            used = {"gpu_ms": 3 * HOUR_MS, "cpu_ms": 0, "num_attempts": 1}
            session.add(UsageMonth(project_id=project_id, user_id="key_a", month=month, **used))

        in_use = app_client.get(f"/v1/quotas/{quota['id']}").json()["in_use"]

        assert in_use["gpus"] == 2
        assert 3.0 <= in_use["gpu_hours_this_month"] < 3.1

    def test_the_least_priority_of_the_quotas_holds(self, app_client: AppClient) -> None:
        key_id = _key_id(app_client)
        _make(app_client, priority_max=80)
        _make(app_client, user=key_id, priority_max=60)

        refused = app_client.post("/v1/jobs", json=job_document(priority=61))
        accepted = app_client.post("/v1/jobs", json=job_document(priority=60))

        assert (refused.status_code, accepted.status_code) == (422, 201)
        (error,) = refused.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/priority", "priority_too_high")

    def test_a_gang_larger_than_the_limit_would_wait_for_ever(self, app_client: AppClient) -> None:
        with app_client.database.write() as session:
            capacity = {"cpu_milli": 8000, "memory_mib": 8192, "gpus": TWO_GPUS}
            add_node(session, capacity=capacity)
        _make(app_client, limit_gpus=1)

        refused = app_client.post("/v1/jobs", json=ON_GPUS)
        by_default = app_client.post("/v1/jobs", json=job_document(workers=2))
        accepted = app_client.post("/v1/jobs", json=job_document(workers=1))

        assert [one.status_code for one in (refused, by_default, accepted)] == [422, 422, 201]
        (error,) = refused.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/workers", "beyond_quota")

    def test_a_member_cannot_raise_a_priority_above_it_later(self, app_client: AppClient) -> None:
        member = app_client.with_key(app_client.make_key())
        _make(app_client, priority_max=60)
        job_id = member.post("/v1/jobs", json=job_document()).json()["id"]

        refused = member.patch(f"/v1/jobs/{job_id}", json={"priority": 61})

        assert refused.status_code == 422
        assert app_client.patch(f"/v1/jobs/{job_id}", json={"priority": 61}).status_code == 200


class TestQueues:
    """Lines in front of pools: made, closed and opened by admins."""

    def test_a_queue_is_made_closed_and_opened(self, app_client: AppClient) -> None:
        answer = app_client.post("/v1/queues", json={"name": "night", "pool": "default"})
        path = answer.headers["location"]

        assert answer.status_code == 201
        assert app_client.get(path).json() == answer.json()
        assert [one["name"] for one in app_client.get("/v1/queues").json()["data"]] == [
            "default",
            "night",
        ]
        assert app_client.patch(path, json={"open": False}).json()["open"] is False
        assert app_client.patch(path, json={"open": True}).json()["open"] is True
        assert app_client.patch("/v1/queues/x", json={"open": True}).status_code == 404

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"name": "default", "pool": "default"}, 409),
            ({"name": "night", "pool": "nowhere"}, 422),
            ({"name": "night"}, 422),
            ({"name": "a b", "pool": "default"}, 422),
        ],
    )
    def test_queues_that_cannot_be(
        self, app_client: AppClient, body: dict[str, object], status: int
    ) -> None:
        assert app_client.post("/v1/queues", json=body).status_code == status

    def test_only_an_admin_makes_and_closes_them(self, app_client: AppClient) -> None:
        member = app_client.with_key(app_client.make_key())

        body = {"name": "night", "pool": "default"}
        assert member.post("/v1/queues", json=body).status_code == 403
        assert member.patch("/v1/queues/default", json={"open": False}).status_code == 403
        assert member.get("/v1/queues/default").status_code == 200

    def test_a_new_pool_comes_with_a_queue_and_jobs_find_it(self, app_client: AppClient) -> None:
        app_client.post("/v1/nodes", json={"name": "gpu1", "pool": "gpus"})
        app_client.post("/v1/queues", json={"name": "night", "pool": "gpus"})

        by_pool = app_client.submit(job_document(pool="gpus"))
        by_queue = app_client.submit(job_document(queue="night"))
        clash = app_client.post("/v1/jobs", json=job_document(queue="night", pool="other"))

        assert (by_pool["queue"], by_pool["pool"]) == ("gpus", "gpus")
        assert (by_queue["queue"], by_queue["pool"]) == ("night", "gpus")
        assert (by_queue["spec"]["queue"], by_queue["spec"]["pool"]) == ("night", "gpus")
        assert clash.status_code == 422
        assert app_client.get("/v1/queues/night").json()["num_pending"] == 1

    def test_a_waiting_job_may_go_over_to_another_queue(self, app_client: AppClient) -> None:
        app_client.post("/v1/nodes", json={"name": "gpu1", "pool": "gpus"})
        job = app_client.submit(job_document())
        path = f"/v1/jobs/{job['id']}"

        moved = app_client.patch(path, json={"queue": "gpus"}).json()
        unknown = app_client.patch(path, json={"queue": "nowhere"})

        assert (moved["queue"], moved["pool"]) == ("gpus", "gpus")
        assert (moved["spec"]["queue"], moved["spec"]["pool"]) == ("gpus", "gpus")
        assert moved["version"] == job["version"] + 1
        assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (422, "unknown_queue")

    def test_a_job_does_not_go_where_it_cannot_run(self, app_client: AppClient) -> None:
        app_client.post("/v1/nodes", json={"name": "small", "pool": "small"})
        with app_client.database.write() as session:
            add_node(session, "tiny", pool="small")
        job = app_client.submit(job_document(workers=3))

        answer = app_client.patch(f"/v1/jobs/{job['id']}", json={"queue": "small"})

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/workers"

    def test_a_job_that_runs_stays_where_it_is(self, app_client: AppClient) -> None:
        app_client.post("/v1/queues", json={"name": "night", "pool": "default"})
        job = app_client.submit(job_document())
        with app_client.database.write() as session:
            start_job(session, job["id"], add_node(session))

        answer = app_client.patch(f"/v1/jobs/{job['id']}", json={"queue": "night"})

        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")


class TestUsage:
    """Who has used how much, and whose share is more than fair."""

    def test_of_a_month_by_project_and_user(self, app_client: AppClient) -> None:
        vision_id = app_client.make_project("vision")
        with app_client.database.write() as session:
            for month, hours in (("2031-05", 3), ("2031-06", 5)):
                session.add(
                    UsageMonth(
                        project_id=vision_id,
                        user_id="key_a",
                        month=month,
                        gpu_ms=hours * HOUR_MS,
                        cpu_ms=HOUR_MS // 2,
                        num_attempts=hours,
                    )
                )

        (told,) = app_client.get("/v1/usage?month=2031-05&project=vision").json()["data"]

        assert (told["project"], told["user"], told["month"]) == ("vision", "key_a", "2031-05")
        assert (told["gpu_hours"], told["cpu_hours"], told["num_attempts"]) == (3.0, 0.5, 3)
        assert told["fair_share"] is None
        assert app_client.get("/v1/usage?month=2031-04").json()["data"] == []
        assert app_client.get("/v1/usage?month=2031-13").status_code == 400

    def test_recent_use_fades_and_is_compared_with_the_fair_share(
        self, app_client: AppClient
    ) -> None:
        half_life = timedelta(milliseconds=DEFAULT_POLICY.half_life_ms)
        vision_id = app_client.make_project("vision")
        _make(app_client, project="vision", weight=3)
        member = app_client.with_key(app_client.make_key("member", "vision"))
        member.post("/v1/jobs", json=job_document())
        app_client.submit(job_document())
        with app_client.database.write() as session:
            session.add(
                UsageShare(
                    project_id=vision_id,
                    user_id="key_a",
                    gpu_ms=4 * HOUR_MS,
                    as_of_at=datetime.now(UTC) - half_life,
                )
            )

        rows = app_client.get("/v1/usage").json()["data"]

        assert [(row["project"], row["fair_share"]) for row in rows] == [
            ("default", 0.25),
            ("vision", 0.75),
            ("vision", None),
        ]
        assert rows[2]["recent_gpu_hours"] == pytest.approx(2.0, rel=1e-3)
        assert [row["recent_share"] for row in rows] == [0.0, 0.0, 1.0]
        assert rows[0]["user_name"] == "first admin"

    def test_what_runs_counts_as_well(self, app_client: AppClient) -> None:
        _start_on_gpus(app_client, ago=timedelta(hours=3))

        (row,) = app_client.get("/v1/usage").json()["data"]

        assert row["gpus_in_use"] == 2
        # Decay is linear within a sixteenth of a half-life, which is 2.1 % low at its beginning.
        assert row["recent_gpu_hours"] == pytest.approx(6.0, rel=0.03)
        # Hours before the month began are not of this month.
        assert 0 <= row["gpu_hours"] <= 6.1

    def test_members_see_their_own_project(self, app_client: AppClient) -> None:
        app_client.make_project("vision")
        member = app_client.with_key(app_client.make_key("member", "vision"))
        app_client.submit(job_document())
        member.post("/v1/jobs", json=job_document())

        assert [row["project"] for row in member.get("/v1/usage").json()["data"]] == ["vision"]
        assert member.get("/v1/usage?project=default").json()["data"] == []

    def test_pages_follow_each_other(self, app_client: AppClient) -> None:
        for name in ("a", "a.b", "c"):
            app_client.make_project(name)
            key = app_client.make_key("member", name)
            app_client.with_key(key).post("/v1/jobs", json=job_document())

        seen, after = [], None
        for _ in range(5):
            query = {"limit": "1", **({} if after is None else {"after": after})}
            page = app_client.get("/v1/usage", params=query).json()
            seen += [row["project"] for row in page["data"]]
            after = page["next_cursor"]
            if after is None:
                break

        assert seen == ["a", "a.b", "c"]


class TestBudgets:
    """A paused job goes on only while it may use GPU-hours."""

    def _pause(self, client: AppClient, **columns: object) -> str:
        job_id: str = client.submit(job_document(limits={"gpu_hours": 2.0}))["id"]
        client.post(f"/v1/jobs/{job_id}/pause")
        with client.database.write() as session:
            job = session.get_one(Job, job_id)
            for name, value in columns.items():
                setattr(job, name, value)
        return job_id

    def test_its_own_are_raised_first(self, app_client: AppClient) -> None:
        path = f"/v1/jobs/{self._pause(app_client, gpu_ms=2 * HOUR_MS)}"

        refused = app_client.post(f"{path}/resume")
        edited = app_client.patch(path, json={"limits": {"gpu_hours": 3.5}}).json()
        resumed = app_client.post(f"{path}/resume")

        assert (refused.status_code, refused.json()["code"]) == (409, "budget_spent")
        assert "limits.gpu_hours = 2" in refused.json()["detail"]
        assert edited["spec"]["limits"]["gpu_hours"] == 3.5
        assert edited["spec"]["limits"]["grace_seconds"] == 30
        assert (resumed.status_code, resumed.json()["state"]) == (200, "pending")

    def test_a_months_are_raised_in_the_quota(self, app_client: AppClient) -> None:
        path = f"/v1/jobs/{self._pause(app_client, gpu_ms=HOUR_MS)}"
        quota = _make(app_client, gpu_hours_per_month=0)

        refused = app_client.post(f"{path}/resume")
        app_client.patch(f"/v1/quotas/{quota['id']}", json={"gpu_hours_per_month": 5})

        assert (refused.status_code, refused.json()["code"]) == (409, "budget_spent")
        assert app_client.post(f"{path}/resume").status_code == 200

    def test_limits_are_merged_and_null_takes_one_away(self, app_client: AppClient) -> None:
        spec = job_document(limits={"gpu_hours": 2.0, "wall_seconds": 60})
        path = f"/v1/jobs/{app_client.submit(spec)['id']}"

        changed = app_client.patch(path, json={"limits": {"gpu_hours": None}}).json()
        same = app_client.patch(path, json={"limits": {}}).json()
        refused = app_client.patch(path, json={"limits": {"grace_seconds": 5}})

        limits = changed["spec"]["limits"]
        assert (limits["gpu_hours"], limits["wall_seconds"]) == (None, 60)
        assert same["version"] == changed["version"]
        assert refused.status_code == 422
        event = app_client.get(f"{path}/events").json()["data"][-1]
        assert event["data"]["limits"] == limits

    def test_the_limits_of_a_job_that_has_ended_stay(self, app_client: AppClient) -> None:
        path = f"/v1/jobs/{app_client.submit(job_document())['id']}"
        app_client.post(f"{path}/cancel")

        answer = app_client.patch(path, json={"limits": {"gpu_hours": 1}})

        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")


class TestDependencies:
    """Jobs of the project that must succeed first."""

    def test_a_job_says_what_it_waits_for(self, app_client: AppClient) -> None:
        first = app_client.submit(job_document())["id"]
        second = app_client.submit(job_document(depends_on=[first]))

        assert second["waits_for"] == [first]
        assert app_client.get(f"/v1/jobs/{second['id']}").json()["waits_for"] == [first]
        assert app_client.get("/v1/jobs").json()["data"][0]["waits_for"] == [first]

    def test_only_jobs_of_the_project_that_may_still_succeed(self, app_client: AppClient) -> None:
        app_client.make_project("vision")
        member = app_client.with_key(app_client.make_key("member", "vision"))
        others = member.post("/v1/jobs", json=job_document()).json()["id"]
        good = app_client.submit(job_document())["id"]
        dead = app_client.submit(job_document())["id"]
        app_client.post(f"/v1/jobs/{dead}/cancel")

        named = [good, "job_x", others, dead, good]
        answer = app_client.post("/v1/jobs", json=job_document(depends_on=named))

        assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [
            ("/depends_on/1", "unknown_job"),
            ("/depends_on/2", "unknown_job"),
            ("/depends_on/3", "dependency_ended"),
            ("/depends_on/4", "named_twice"),
        ]

    def test_a_job_that_others_wait_for_is_not_removed(self, app_client: AppClient) -> None:
        first = app_client.submit(job_document())["id"]
        second = app_client.submit(job_document(depends_on=[first]))["id"]
        app_client.post(f"/v1/jobs/{first}/cancel")

        refused = app_client.delete(f"/v1/jobs/{first}")
        app_client.post(f"/v1/jobs/{second}/cancel")

        assert (refused.status_code, refused.json()["code"]) == (409, "job_in_use")
        assert app_client.delete(f"/v1/jobs/{first}").status_code == 204

    def test_a_rerun_waits_for_nothing(self, app_client: AppClient) -> None:
        first = app_client.submit(job_document())["id"]
        second = app_client.submit(job_document(depends_on=[first]))["id"]
        app_client.post(f"/v1/jobs/{first}/cancel")

        answer = app_client.post(f"/v1/jobs/{second}/rerun")

        assert (answer.status_code, answer.json()["waits_for"]) == (201, [])


def test_a_reservation_is_shown_as_an_instant(app_client: AppClient) -> None:
    job_id = app_client.submit(job_document())["id"]
    with app_client.database.write() as session:
        session.get_one(Job, job_id).reservation = {"start_ms": 1_900_000_000_000, "node_ids": []}

    job = app_client.get(f"/v1/jobs/{job_id}").json()

    assert job["reservation"] == {"start_at": "2030-03-17T17:46:40Z"}
    assert job["evictions"] == 0


def test_what_gpus_a_job_asks_for_is_kept_for_the_scheduler(app_client: AppClient) -> None:
    resources = {"gpus": 2, "gpu_models": ["H200"], "gpu_memory_gib": 80, "spread": True}
    with app_client.database.write() as session:
        capacity = {"cpu_milli": 8000, "memory_mib": 8192, "gpus": TWO_GPUS}
        add_node(session, capacity=capacity)
    document = job_document(workers=1, resources=resources)

    job_id = app_client.submit(document)["id"]
    refused = app_client.post(
        "/v1/jobs", json=job_document(workers=1, resources={"gpus": 1, "gpu_models": ["A100"]})
    )

    with app_client.database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.request_gpu_models, job.request_gpu_memory_mib) == (["H200"], 81_920)
        assert job.may_spread
        assert job.recipe == "image-classifier"
        assert session.scalars(select(Attempt)).all() == []
    (error,) = refused.json()["errors"]
    assert error["code"] == "no_such_gpu"
    assert "H200 with 140 GiB" in error["message"]
