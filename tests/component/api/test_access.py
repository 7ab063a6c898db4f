"""Who may call what: every route, every method, every kind of credential."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import update

from api import app as app_module
from api import deps
from api.app import create_app
from api.auth import credentials as credentials_module
from api.auth.gate import PUBLIC_CALLS, PUBLIC_FOLDERS, PUBLIC_PATHS, SESSION_COOKIE
from api.auth.tokens import hash_secret, issue_attempt_token, new_api_key, new_node_credential
from models import ApiKey, Node
from tests.app_client import BASE_URL, AppClient
from tests.factories import add_node, job_document

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def _routes(client: AppClient) -> list[APIRoute]:
    app = client.app
    assert isinstance(app, FastAPI)
    return [route for route in app.routes if isinstance(route, APIRoute)]


def _path(route: APIRoute) -> str:
    path = route.path_format
    for name in route.param_convertors:
        path = path.replace(f"{{{name}}}", "x")
    return path


def _is_public(method: str, path: str) -> bool:
    safe = "GET" if method == "HEAD" else method
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDERS) or (safe, path) in PUBLIC_CALLS


def _expired(client: AppClient) -> str:
    key = client.make_key()
    with client.database.write() as session:
        session.execute(
            update(ApiKey)
            .where(ApiKey.last4 == key[-4:])
            .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
    return key


def _revoked(client: AppClient) -> str:
    answer = client.post("/v1/keys", json={"name": "gone", "role": "admin"}).json()
    assert client.delete(f"/v1/keys/{answer['id']}").status_code == 204
    key: str = answer["key"]
    return key


def _mistyped(key: str) -> str:
    return key[:-1] + ("A" if key[-1] != "A" else "B")


# Some 1,500 requests, of which few come as far as the database.
@pytest.mark.parametrize("app_database", ["sqlite"], indirect=True)
def test_no_route_answers_without_a_good_credential(app_client: AppClient) -> None:
    token = issue_attempt_token(
        app_client.config.signing_key, "att_x", "node_x", 1, datetime.now(UTC) - timedelta(1)
    )
    forged = issue_attempt_token(bytes(32), "att_x", "node_x", 1, datetime.now(UTC) + timedelta(1))
    headers: dict[str, dict[str, str]] = {
        "none": {},
        "empty": {"authorization": ""},
        "no secret": {"authorization": "Bearer "},
        "basic": {"authorization": "Basic dG1sLTp4"},
        "nonsense": {"authorization": "Bearer nonsense"},
        "not ASCII": {"authorization": "Bearer tml-\u00e4"},
        "huge": {"authorization": "Bearer tml-" + "A" * 5000},
        "made up": {"authorization": f"Bearer {new_api_key()}"},
        "mistyped": {"authorization": f"Bearer {_mistyped(app_client.admin_key)}"},
        "expired": {"authorization": f"Bearer {_expired(app_client)}"},
        "revoked": {"authorization": f"Bearer {_revoked(app_client)}"},
        "unknown node": {"authorization": f"Bearer {new_node_credential()}"},
        "old token": {"authorization": f"Bearer {token}"},
        "forged token": {"authorization": f"Bearer {forged}"},
        "two": {"authorization": f"Bearer {app_client.admin_key}", "x-api-key": "tml-x"},
        "cookie": {"cookie": f"{SESSION_COOKIE}=tms-x"},
        "key as cookie": {"cookie": f"{SESSION_COOKIE}={app_client.admin_key}"},
    }
    anonymous = app_client.anonymous()
    checked = 0

    offered = {
        (_path(route), method) for route in _routes(app_client) for method in route.methods or ()
    }
    for path in sorted({path for path, _ in offered} | {"/x", "/v1/x"}):
        for method in METHODS:
            if _is_public(method, path):
                continue
            names = headers if (path, method) in offered else ("none", "made up")
            for name in names:
                sent = headers[name]
                raw = {key: value.encode("latin-1") for key, value in sent.items()}
                answer = anonymous.request(method, path, headers=raw)
                assert answer.status_code == 401, (method, path, name, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                checked += 1

    assert checked > 1000


def test_public_routes_are_those_of_the_allow_list_and_take_no_more(app_client: AppClient) -> None:
    anonymous = app_client.anonymous()

    for path in ("/healthz", "/readyz", "/version", "/openapi.json", "/docs"):
        assert anonymous.get(path).status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert anonymous.request(method, path).status_code == 405
    assert anonymous.get("/metrics").status_code == 401
    assert anonymous.get("/v1/sessions").status_code == 401


@pytest.fixture
def callers(app_client: AppClient) -> dict[str, TestClient]:
    """One client for each kind of caller."""
    credential = new_node_credential()
    with app_client.database.write() as session:
        node = add_node(session, credential_sha256=hash_secret(credential))
    token = issue_attempt_token(
        app_client.config.signing_key, "att_x", node.id, 1, datetime.now(UTC) + timedelta(1)
    )
    return {
        "viewer": app_client.with_key(app_client.make_key("viewer")),
        "member": app_client.with_key(app_client.make_key("member")),
        "admin": app_client.with_key(app_client.make_key("admin")),
        "node": app_client.with_key(credential),
        "attempt": app_client.with_key(token),
    }


_ALLOWED: dict[object, set[str]] = {
    deps.viewer: {"viewer", "member", "admin"},
    deps.member: {"member", "admin"},
    deps.admin: {"admin"},
    deps.node: {"node"},
    deps.attempt: {"attempt"},
    deps.public: {"viewer", "member", "admin", "node", "attempt"},
}


def test_every_route_refuses_every_kind_of_caller_it_is_not_for(
    app_client: AppClient, callers: dict[str, TestClient]
) -> None:
    for route in _routes(app_client):
        (kind,) = deps.find_callers(route.dependant)
        for method in sorted(route.methods or ()):
            for name, client in callers.items():
                if name in _ALLOWED[kind]:
                    continue
                answer = client.request(method, _path(route), json={})
                assert answer.status_code == 403, (method, route.path, name, answer.text)


def test_an_app_with_a_route_for_nobody_in_particular_does_not_start(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful, open_door = APIRouter(), APIRouter()

    @forgetful.get("/v1/forgotten")
    def forgotten() -> dict[str, str]:
        return {}

    @open_door.get("/v1/open")
    def opened(nobody: deps.PublicCaller) -> dict[str, str]:
        return {}

    for router in (forgetful, open_door):
        monkeypatch.setattr(app_module, "ROUTERS", (*app_module.ROUTERS, router))
        with pytest.raises(ValueError, match=r"caller|public"):
            create_app(app_client.config, app_client.database)
        monkeypatch.undo()


def test_things_of_another_project_do_not_exist(app_client: AppClient) -> None:
    app_client.make_project("vision")
    theirs = app_client.submit(job_document())["id"]
    client = app_client.with_key(app_client.make_key("member", "vision"))
    mine = client.post("/v1/jobs", json=job_document()).json()["id"]
    unknown = "job_00000000000000000000000000"
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/events", None),
        ("GET", "/events/stream", None),
        ("GET", "/attempts", None),
        ("GET", "/logs", None),
        ("GET", "/metrics", None),
        ("GET", "/checkpoints", None),
        ("PATCH", "", {"priority": 1}),
        ("DELETE", "", None),
        ("POST", "/cancel", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/hold", None),
        ("POST", "/release", None),
        ("POST", "/checkpoint", None),
        ("POST", "/fork", None),
        ("POST", "/rerun", None),
    ]

    for method, path, body in calls:
        foreign = client.request(method, f"/v1/jobs/{theirs}{path}", json=body)
        missing = client.request(method, f"/v1/jobs/{unknown}{path}", json=body)
        assert foreign.status_code == missing.status_code == 404, (method, path, foreign.text)
        assert foreign.json()["detail"] == missing.json()["detail"]

    assert [job["id"] for job in client.get("/v1/jobs").json()["data"]] == [mine]
    assert client.get("/v1/jobs?project=default").json()["data"] == []
    assert {job["id"] for job in app_client.get("/v1/jobs").json()["data"]} == {mine, theirs}
    assert app_client.get(f"/v1/jobs/{theirs}").json()["version"] == 1


def test_a_revoked_key_is_dead_at_once_where_it_was_revoked(app_client: AppClient) -> None:
    made = app_client.post("/v1/keys", json={"name": "ci"}).json()
    client = app_client.with_key(made["key"])
    assert client.get("/v1/jobs").status_code == 200

    app_client.delete(f"/v1/keys/{made['id']}")

    assert client.get("/v1/jobs").status_code == 401


def test_a_key_revoked_elsewhere_is_dead_within_five_seconds(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = app_client.post("/v1/keys", json={"name": "ci"}).json()
    client = app_client.with_key(made["key"])
    assert client.get("/v1/jobs").status_code == 200
    with app_client.database.write() as session:
        session.execute(
            update(ApiKey).where(ApiKey.id == made["id"]).values(revoked_at=datetime.now(UTC))
        )
    assert credentials_module.TTL_SECONDS <= 5
    now = time.monotonic()
    later = now + credentials_module.TTL_SECONDS + 0.1
    monkeypatch.setattr("api.auth.credentials.time.monotonic", lambda: later)

    assert client.get("/v1/jobs").status_code == 401


def test_a_key_that_expires_is_dead_when_it_does(app_client: AppClient) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    client = app_client.with_key(app_client.make_key(expires_at=soon))
    assert client.get("/v1/jobs").status_code == 200
    deadline = time.monotonic() + 5

    while client.get("/v1/jobs").status_code == 200:
        assert time.monotonic() < deadline

    assert client.get("/v1/jobs").status_code == 401


def test_a_rejoined_node_has_one_good_credential(app_client: AppClient) -> None:
    first = app_client.post("/v1/nodes", json={"name": "box1"}).json()
    second = app_client.post("/v1/nodes", json={"name": "box1"}).json()

    assert first["id"] == second["id"]
    with app_client.database.read() as session:
        stored = session.get_one(Node, first["id"]).credential_sha256
    assert first["credential"] not in stored


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8700", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8700", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[", 421),
        ("localhost@evil.example", 421),
    ],
)
def test_only_names_of_this_service_are_answered(
    shared_client: AppClient, host: str, status: int
) -> None:
    answer = shared_client.get("/v1/jobs", headers={"host": host})

    assert answer.status_code == status


def test_no_other_site_may_read_with_a_browser(shared_client: AppClient) -> None:
    answer = shared_client.get("/v1/jobs", headers={"origin": "http://evil.example"})

    assert not [name for name in answer.headers if name.startswith("access-control")]


class TestBrowserSessions:
    """A key becomes a cookie; the cookie needs the right origin for everything unsafe."""

    @pytest.fixture
    def browser(self, shared_client: AppClient) -> TestClient:
        """A browser that has logged in as a member."""
        client = shared_client.anonymous()
        answer = client.post("/v1/sessions", json={"key": shared_client.make_key()})
        assert answer.status_code == 201
        return client

    def test_the_cookie_is_for_this_service_and_not_for_scripts(
        self, shared_client: AppClient
    ) -> None:
        answer = shared_client.anonymous().post(
            "/v1/sessions", json={"key": shared_client.admin_key}
        )

        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie
        assert shared_client.admin_key not in cookie
        assert answer.json()["role"] == "admin"

    def test_behind_tls_the_cookie_never_leaves_it(self, shared_client: AppClient) -> None:
        answer = shared_client.anonymous().post(
            "/v1/sessions",
            json={"key": shared_client.admin_key},
            headers={"origin": "https://127.0.0.1:8700"},
        )

        assert "secure" in answer.headers["set-cookie"].lower()

    def test_reads_need_no_origin(self, browser: TestClient) -> None:
        assert browser.get("/v1/jobs").status_code == 200
        assert browser.get("/v1/sessions").json()["role"] == "member"

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "null"},
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:8701"},
            {"origin": "http://127.0.0.1:8700.evil.example"},
            {"origin": "ftp://127.0.0.1:8700"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
        ],
    )
    def test_changes_from_elsewhere_are_refused(
        self, browser: TestClient, method: str, headers: dict[str, str]
    ) -> None:
        answer = browser.request(method, "/v1/jobs", json=job_document(), headers=headers)

        assert answer.status_code == 403

    @pytest.mark.parametrize("headers", [{"origin": BASE_URL}, {"sec-fetch-site": "same-origin"}])
    def test_changes_from_the_own_pages_pass(
        self, browser: TestClient, headers: dict[str, str]
    ) -> None:
        answer = browser.post("/v1/jobs", json=job_document(), headers=headers)

        assert answer.status_code == 201

    def test_another_site_cannot_log_a_browser_in(self, shared_client: AppClient) -> None:
        answer = shared_client.anonymous().post(
            "/v1/sessions",
            json={"key": shared_client.admin_key},
            headers={"origin": "http://evil.example"},
        )

        assert answer.status_code == 403

    def test_an_ended_session_is_over_even_for_a_kept_cookie(self, browser: TestClient) -> None:
        kept = browser.cookies[SESSION_COOKIE]
        assert browser.delete("/v1/sessions", headers={"origin": BASE_URL}).status_code == 204

        answer = browser.get("/v1/jobs", headers={"cookie": f"{SESSION_COOKIE}={kept}"})

        assert answer.status_code == 401

    def test_a_revoked_key_takes_its_sessions_along(self, shared_client: AppClient) -> None:
        made = shared_client.post("/v1/keys", json={"name": "x"}).json()
        browser = shared_client.anonymous()
        browser.post("/v1/sessions", json={"key": made["key"]})
        assert browser.get("/v1/jobs").status_code == 200

        shared_client.delete(f"/v1/keys/{made['id']}")

        assert browser.get("/v1/jobs").status_code == 401

    @pytest.mark.parametrize("key", ["", "nonsense", "tmn-x", "tma-x", "tms-x"])
    def test_only_a_good_key_becomes_a_session(self, shared_client: AppClient, key: str) -> None:
        answer = shared_client.anonymous().post("/v1/sessions", json={"key": key})

        assert answer.status_code in {401, 422}
        assert "set-cookie" not in answer.headers

    def test_a_cookie_in_a_header_of_its_own_is_no_credential(self, browser: TestClient) -> None:
        secret = browser.cookies[SESSION_COOKIE]
        browser.cookies.clear()

        answer = browser.get("/v1/jobs", headers={"authorization": f"Bearer {secret}"})

        assert answer.status_code == 401
