"""The service itself: health, documents, series, failures, log lines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from api.app import create_app
from models import Database, DatabaseConfig
from tests.app_client import AppClient
from tests.factories import add_node, job_document

ROOT = Path(__file__).parent.parent.parent.parent


def _samples(client: AppClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_full_disk_is_not_ready_and_says_so(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(total=10**12, used=10**12, free=3 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: full)

    answer = app_client.get("/readyz")

    assert answer.status_code == 503
    assert "storage has 3 MiB left" in answer.json()["detail"]


def test_health_readiness_and_version(app_client: AppClient) -> None:
    assert app_client.get("/healthz").json() == {"status": "ok"}
    assert app_client.get("/readyz").json() == {"status": "ready"}
    assert app_client.get("/version").json()["version"] == "0.1.0"


def test_a_service_without_its_database_is_alive_and_not_ready(
    app_client: AppClient, tmp_path: Path
) -> None:
    gone = Database(DatabaseConfig(url=f"sqlite:///{tmp_path}/no/such/folder/x.db"))
    with_gone = AppClient(create_app(app_client.config, gone), app_client.config, gone, "tml-x")

    ready = with_gone.get("/readyz")

    assert with_gone.get("/healthz").status_code == 200
    assert (ready.status_code, ready.json()["code"]) == (503, "unavailable")
    assert ready.headers["retry-after"] == "1"
    assert ready.json()["retryable"]
    keyed = with_gone.with_key(app_client.admin_key).get("/v1/jobs")
    assert keyed.status_code == 503


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        ("database is locked", 503, "unavailable"),
        ("server closed the connection unexpectedly", 503, "unavailable"),
        ("database or disk is full", 507, "out_of_storage"),
    ],
)
def test_a_failing_database_is_told_as_what_it_is(
    app_client: AppClient,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
    status: int,
    code: str,
) -> None:
    def fail(_work: Any) -> None:
        raise OperationalError("INSERT INTO jobs VALUES (secret)", {}, Exception(cause))

    monkeypatch.setattr(app_client.database, "write_together", fail)

    answer = app_client.post("/v1/jobs", json=job_document())

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "INSERT" not in answer.text
    assert cause not in answer.text


def test_an_answer_is_not_a_success_when_the_commit_fails(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(app_client.database.engine.dialect, "do_commit", fail)
    answers = [
        app_client.post("/v1/jobs", json=job_document()),
        app_client.post("/v1/projects", json={"name": "vision"}),
    ]
    monkeypatch.undo()

    assert [answer.status_code for answer in answers] == [503, 503]
    assert app_client.get("/v1/jobs").json()["data"] == []
    assert len(app_client.get("/v1/projects").json()["data"]) == 1
    assert app_client.post("/v1/jobs", json=job_document()).status_code == 201


def test_what_was_answered_is_seen_by_everybody_at_once(app_client: AppClient) -> None:
    other = app_client.with_key(app_client.make_key())

    for number in range(5):
        app_client.post("/v1/projects", json={"name": f"p{number}"})
        job = app_client.submit(job_document())
        assert other.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_our_own_mistake_is_a_problem_without_its_insides(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_work: Any) -> None:
        raise RuntimeError("secret insides")

    monkeypatch.setattr(app_client.database, "write_together", fail)
    with structlog.testing.capture_logs() as lines:
        answer = app_client.post("/v1/jobs", json=job_document())

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "insides" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert [line["event"] for line in lines] == ["unexpected error", "request"]


def test_each_request_is_one_line_without_credentials(app_client: AppClient) -> None:
    job = app_client.submit(job_document())
    with structlog.testing.capture_logs() as lines:
        app_client.get(f"/v1/jobs/{job['id']}?wait=0", headers={"x-request-id": "mine-1"})
        app_client.get("/v1/jobs/x")
        app_client.anonymous().get("/v1/jobs")

    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/jobs/{job_id}", 200),
        ("/v1/jobs/{job_id}", 404),
        ("unmatched", 401),
    ]
    assert lines[0]["request_id"] == "mine-1"
    assert lines[0]["key_id"].startswith("key_")
    assert app_client.admin_key not in str(lines)


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "<script>", "ä"])
def test_a_request_id_that_is_none_is_replaced(app_client: AppClient, sent: str) -> None:
    answer = app_client.get("/healthz", headers={b"x-request-id": sent.encode()})

    assert re.fullmatch(r"req-[0-9a-f]{16}", answer.headers["x-request-id"])


def test_the_series_count_requests_jobs_and_nodes(app_client: AppClient) -> None:
    with app_client.database.write() as session:
        add_node(session)
    for _ in range(3):
        app_client.submit(job_document())
    app_client.get("/v1/jobs/job_1")
    app_client.get("/v1/jobs/job_2")
    app_client.get("/nowhere")

    samples = _samples(app_client)

    name = "http_server_request_duration_seconds_count"
    created = (("method", "POST"), ("route", "/v1/jobs"), ("status", "201"))
    missing = (("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "404"))
    nowhere = (("method", "GET"), ("route", "unmatched"), ("status", "404"))
    assert [samples[name, labels] for labels in (created, missing, nowhere)] == [3, 2, 1]
    pending = (("project", "default"), ("state", "pending"))
    assert samples["trainmaster_jobs", pending] == 3
    queued = (("pool", "default"), ("project", "default"))
    assert samples["trainmaster_pending_jobs", queued] == 3
    assert samples["trainmaster_nodes", (("pool", "default"), ("state", "ready"))] == 1
    assert samples["trainmaster_cpus", (("pool", "default"), ("state", "free"))] == 2
    assert samples["trainmaster_sse_connections", ()] == 0
    assert samples["trainmaster_long_poll_waiters", ()] == 0


def test_labels_of_the_series_are_bounded(app_client: AppClient) -> None:
    for number in range(30):
        app_client.get(f"/x{number}")
        app_client.request(f"M{number}", "/v1/jobs")
        app_client.submit(job_document(name=f"n{number}", labels={f"l{number}": "x"}))

    labels = {labels for _, labels in _samples(app_client)}

    assert not [one for one in labels if re.search(r"\d\d", str(one)) and "le" not in dict(one)
                and "status" not in dict(one)]  # fmt: skip
    assert len({dict(one)["method"] for one in labels if "method" in dict(one)}) <= 3


def test_a_key_counts_its_own_projects_jobs_only(app_client: AppClient) -> None:
    app_client.make_project("vision")
    app_client.submit(job_document())
    viewer = app_client.with_key(app_client.make_key("viewer", "vision"))

    answer = viewer.get("/metrics")

    assert answer.status_code == 200
    assert 'project="default"' not in answer.text


class TestDocs:
    """/docs works without any other server, under a strict policy."""

    def test_the_page_loads_only_what_is_bundled(self, app_client: AppClient) -> None:
        page = app_client.anonymous().get("/docs")

        urls = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(urls) == 4
        for url in urls:
            assert url == "data:," or url.startswith("/docs/assets/")
            if url.startswith("/"):
                answer = app_client.anonymous().get(url)
                assert answer.status_code == 200
                assert answer.headers["content-type"].split(";")[0] in {
                    "text/css",
                    "text/javascript",
                }
        assert not re.findall(r"<script>|<style|\son\w+=|style=", page.text)

    def test_the_policy_allows_nothing_inline_and_nobody_else(self, app_client: AppClient) -> None:
        policy = app_client.anonymous().get("/docs").headers["content-security-policy"]

        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy

    def test_assets_are_those_of_the_list(self, app_client: AppClient) -> None:
        for name in ("docs.py", "..%2fdocs.py", "LICENSE", "%2e%2e/openapi.py"):
            assert app_client.anonymous().get(f"/docs/assets/{name}").status_code == 404

    def test_the_bundle_says_what_it_is(self) -> None:
        folder = ROOT / "api" / "system" / "swagger_ui"

        assert "Apache License" in (folder / "LICENSE").read_text()
        assert re.search(r"swagger-ui-dist \d+\.\d+\.\d+", (folder / "VERSION").read_text())


def test_every_answer_forbids_sniffing_and_framing(app_client: AppClient) -> None:
    for path in ("/healthz", "/v1/jobs", "/docs", "/nowhere", "/openapi.json"):
        headers = app_client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
