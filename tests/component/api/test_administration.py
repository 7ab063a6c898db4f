"""Keys, projects, nodes, pools, queues, recipes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from models import Node
from models.queries.jobs import JOBS_TOPIC, node_topic
from tests.app_client import AppClient
from tests.factories import add_node, job_document, start_job


def _add_node(client: AppClient, name: str = "box1", **overrides: object) -> str:
    with client.database.write() as session:
        return add_node(session, name, **overrides).id


class TestKeys:
    """Made, shown once, listed, revoked."""

    def test_a_key_is_shown_once_and_stored_nowhere(self, app_client: AppClient) -> None:
        answer = app_client.post("/v1/keys", json={"name": "ci", "role": "viewer"})

        made = answer.json()
        secret = made.pop("key")
        assert answer.status_code == 201
        assert secret.startswith("tml-")
        assert made["last4"] == secret[-4:]
        assert app_client.get(answer.headers["location"]).json() == made
        assert made in app_client.get("/v1/keys").json()["data"]
        assert secret not in app_client.get("/v1/keys").text
        with app_client.database.read() as session:
            rows = session.execute(text("SELECT * FROM api_keys")).all()
        assert secret not in str(rows)

    def test_revoking_twice_is_the_same_as_once(self, app_client: AppClient) -> None:
        made = app_client.post("/v1/keys", json={"name": "ci"}).json()
        path = f"/v1/keys/{made['id']}"

        first = app_client.delete(path)
        revoked_at = app_client.get(path).json()["revoked_at"]
        second = app_client.delete(path)

        assert first.status_code == second.status_code == 204
        assert revoked_at is not None
        assert app_client.get(path).json()["revoked_at"] == revoked_at
        assert app_client.delete("/v1/keys/key_x").status_code == 404

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": ""},
            {"name": "x", "role": "root"},
            {"name": "x", "rol": "admin"},
            {"name": "x", "project": "nowhere"},
            {"name": "x", "expires_at": "soon"},
            {"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"},
            {"name": "x", "expires_at": "2001-01-01T00:00:00Z"},
            {"name": "x", "expires_at": 5},
        ],
    )
    def test_keys_that_cannot_be(self, app_client: AppClient, body: dict[str, object]) -> None:
        assert app_client.post("/v1/keys", json=body).status_code == 422

    def test_two_keys_work_during_rotation(self, app_client: AppClient) -> None:
        old, new = app_client.make_key("admin"), app_client.make_key("admin")

        for key in (old, new):
            assert app_client.with_key(key).get("/v1/keys").status_code == 200


class TestProjects:
    """Made by admins, seen by their own."""

    def test_a_name_is_given_once(self, app_client: AppClient) -> None:
        answer = app_client.post("/v1/projects", json={"name": "vision"})
        again = app_client.post("/v1/projects", json={"name": "vision"})

        assert answer.status_code == 201
        assert app_client.get(answer.headers["location"]).json() == answer.json()
        assert (again.status_code, again.json()["code"]) == (409, "name_taken")

    @pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "ä", "x" * 129, 5, None])
    def test_names_that_cannot_be(self, app_client: AppClient, name: object) -> None:
        assert app_client.post("/v1/projects", json={"name": name}).status_code == 422

    def test_others_projects_are_not_there(self, app_client: AppClient) -> None:
        project_id = app_client.make_project("vision")
        member = app_client.with_key(app_client.make_key())

        assert [p["name"] for p in member.get("/v1/projects").json()["data"]] == ["default"]
        assert member.get(f"/v1/projects/{project_id}").status_code == 404
        names = {p["name"] for p in app_client.get("/v1/projects").json()["data"]}
        assert names == {"default", "vision"}


class TestNodes:
    """What there is, how much is free, whether it takes new work."""

    def test_a_node_shows_its_room_less_what_is_taken(self, app_client: AppClient) -> None:
        gpus = [{"index": 0, "uuid": "GPU-0", "model": "H200", "memory_mib": 143_360}]
        node_id = _add_node(
            app_client, capacity={"cpu_milli": 4000, "memory_mib": 8192, "gpus": gpus}
        )
        job_id = app_client.submit(job_document(resources={"gpus": 0}))["id"]
        with app_client.database.write() as session:
            start_job(session, job_id, session.get_one(Node, node_id))

        node = app_client.get(f"/v1/nodes/{node_id}").json()

        assert node["state"] == "ready"
        assert node["capacity"] == {"gpus": 1, "cpus": 4.0, "memory_gib": 8.0}
        assert node["free"] == {"gpus": 1, "cpus": 2.0, "memory_gib": 8.0}
        assert node["num_attempts"] == 1
        assert node["gpus"][0]["memory_gib"] == 140.0
        assert app_client.get("/v1/nodes").json()["data"] == [node]
        assert app_client.get("/v1/nodes?pool=other").json()["data"] == []

    def test_a_node_that_has_said_nothing_yet(self, app_client: AppClient) -> None:
        node_id = _add_node(app_client, capacity=None, heartbeat_at=None)

        node = app_client.get(f"/v1/nodes/{node_id}").json()

        assert (node["state"], node["gpus"]) == ("silent", [])
        assert node["capacity"] == {"gpus": 0, "cpus": 0.0, "memory_gib": 0.0}

    def test_a_silent_node_is_silent_before_anything_else(self, app_client: AppClient) -> None:
        long_ago = datetime.now(UTC) - timedelta(minutes=5)
        node_id = _add_node(app_client, heartbeat_at=long_ago, is_cordoned=True)

        assert app_client.get(f"/v1/nodes/{node_id}").json()["state"] == "silent"

    def test_cordon_drain_and_uncordon_are_told_at_once(self, app_client: AppClient) -> None:
        node_id = _add_node(app_client)
        doorbell = app_client.database.doorbell
        states = []

        for action in ("cordon", "drain", "uncordon"):
            since = doorbell.count(JOBS_TOPIC), doorbell.count(node_topic(node_id))
            states.append(app_client.post(f"/v1/nodes/{node_id}/{action}").json()["state"])
            assert doorbell.count(JOBS_TOPIC) > since[0]
            assert doorbell.count(node_topic(node_id)) > since[1]

        assert states == ["cordoned", "draining", "ready"]
        assert app_client.post("/v1/nodes/node_x/drain").status_code == 404

    def test_a_rack_is_said_and_taken_back(self, app_client: AppClient) -> None:
        path = f"/v1/nodes/{_add_node(app_client)}"

        assert app_client.get(path).json()["rack"] is None
        assert app_client.patch(path, json={"rack": "r1"}).json()["rack"] == "r1"
        assert app_client.get(path).json()["rack"] == "r1"
        assert app_client.patch(path, json={"rack": None}).json()["rack"] is None
        assert app_client.patch(path, json={}).status_code == 422
        assert app_client.patch("/v1/nodes/node_x", json={"rack": "r1"}).status_code == 404

    def test_a_node_in_quarantine_says_why_and_until_it_is_uncordoned(
        self, app_client: AppClient
    ) -> None:
        until = datetime.now(UTC) + timedelta(minutes=50)
        node_id = _add_node(
            app_client, quarantined_until=until, quarantine_message="failed 3 times"
        )

        node = app_client.get(f"/v1/nodes/{node_id}").json()
        pool = app_client.get("/v1/pools/default").json()
        cleared = app_client.post(f"/v1/nodes/{node_id}/uncordon").json()

        assert node["state"] == "quarantined"
        assert node["quarantine"]["message"] == "failed 3 times"
        assert pool["num_nodes_ready"] == 0
        assert (cleared["state"], cleared["quarantine"]) == ("ready", None)

    def test_a_quarantine_ends_by_itself(self, app_client: AppClient) -> None:
        until = datetime.now(UTC) - timedelta(seconds=1)
        node_id = _add_node(app_client, quarantined_until=until, quarantine_message="x")

        node = app_client.get(f"/v1/nodes/{node_id}").json()

        assert (node["state"], node["quarantine"]) == ("ready", None)


def test_a_pool_counts_the_room_of_nodes_that_take_work(app_client: AppClient) -> None:
    _add_node(app_client, "a")
    _add_node(app_client, "b", is_cordoned=True)

    pool = app_client.get("/v1/pools/default").json()

    assert (pool["num_nodes"], pool["num_nodes_ready"]) == (2, 1)
    assert pool["capacity"]["cpus"] == pool["free"]["cpus"] == 2.0
    assert app_client.get("/v1/pools").json()["data"] == [pool]


def test_the_queue_counts_the_jobs_that_the_key_may_see(app_client: AppClient) -> None:
    app_client.make_project("vision")
    member = app_client.with_key(app_client.make_key("member", "vision"))
    for _ in range(2):
        app_client.submit(job_document())
    member.post("/v1/jobs", json=job_document())

    assert app_client.get("/v1/queues/default").json()["num_pending"] == 3
    assert member.get("/v1/queues").json()["data"][0]["num_pending"] == 1
    assert app_client.get("/v1/queues/fast").status_code == 404


def test_recipes_are_described_and_their_examples_are_accepted(app_client: AppClient) -> None:
    recipes = app_client.get("/v1/recipes").json()["data"]

    assert "image-classifier" in [recipe["name"] for recipe in recipes]
    for recipe in recipes:
        assert app_client.get(f"/v1/recipes/{recipe['name']}").json() == recipe
        told = app_client.post("/v1/jobs/validate", json=recipe["example"]).json()
        # An example may begin with a checkpoint, which nobody has made here.
        wrong = [each for each in told["errors"] if each["code"] != "unknown_checkpoint"]
        assert wrong == []
