"""Reading jobs: one, waiting for it, and lists in pages."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import event, update

from models import Attempt
from tests.app_client import AppClient
from tests.factories import add_node, job_document, start_job


def _run(client: AppClient, job_id: str, **progress: Any) -> str:
    with client.database.write() as session:
        attempt = start_job(session, job_id, add_node(session))
        if progress:
            attempt.progress = progress
        return attempt.id


def test_a_running_job_shows_its_attempt_and_how_far_it_is(app_client: AppClient) -> None:
    job = app_client.submit(job_document())
    attempt_id = _run(app_client, job["id"], step=25, total_steps=100, steps_per_second=2.5)

    shown = app_client.get(f"/v1/jobs/{job['id']}").json()

    assert (shown["state"], shown["reason"]) == ("running", "Training")
    assert shown["attempt"] == {"id": attempt_id, "number": 1, "nodes": ["box1"]}
    assert shown["progress"] == {
        "step": 25,
        "total_steps": 100,
        "steps_per_second": 2.5,
        "remaining_seconds": 30.0,
    }
    assert shown["started_at"] is not None
    started = {one["type"]: one["status"] for one in shown["conditions"]}
    assert started == {"Started": "True", "Finished": "False"}


@pytest.mark.parametrize(
    ("progress", "remaining"),
    [
        pytest.param({"step": 5}, None, id="nothing said of the end"),
        pytest.param({"step": 5, "total_steps": 10}, None, id="no speed"),
        pytest.param({"step": 5, "total_steps": 10, "steps_per_second": 0.0}, None, id="standing"),
        pytest.param({"step": 15, "total_steps": 10, "steps_per_second": 1.0}, 0.0, id="beyond"),
    ],
)
def test_remaining_time_is_told_when_it_is_known(
    app_client: AppClient, progress: dict[str, Any], remaining: float | None
) -> None:
    job = app_client.submit(job_document())
    _run(app_client, job["id"], **progress)

    shown = app_client.get(f"/v1/jobs/{job['id']}").json()["progress"]

    assert shown["remaining_seconds"] == remaining


def test_an_unchanged_job_is_not_sent_again_and_progress_is_a_change(app_client: AppClient) -> None:
    job = app_client.submit(job_document())
    path = f"/v1/jobs/{job['id']}"
    attempt_id = _run(app_client, job["id"], step=1)
    etag = app_client.get(path).headers["etag"]

    same = app_client.get(path, headers={"if-none-match": f'"0.0", W/{etag}'})
    with app_client.database.write() as session:
        session.execute(
            update(Attempt).where(Attempt.id == attempt_id).values(progress={"step": 2})
        )
    changed = app_client.get(path, headers={"if-none-match": etag})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert changed.status_code == 200
    assert changed.json()["version"] == 3 + 1
    assert changed.headers["etag"] != etag


class TestWaiting:
    """`wait` answers at a change, at the end, or when time is up."""

    def test_a_change_ends_the_wait(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        path = f"/v1/jobs/{job['id']}"
        timer = threading.Timer(0.3, lambda: app_client.patch(path, json={"priority": 7}))
        began = time.monotonic()
        timer.start()

        answer = app_client.get(f"{path}?wait=30&after_version=1")

        assert answer.json()["version"] == 2
        assert 0.2 < time.monotonic() - began < 10
        timer.join()

    def test_a_change_that_was_missed_is_told_at_once(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        app_client.patch(f"/v1/jobs/{job['id']}", json={"priority": 7})
        began = time.monotonic()

        answer = app_client.get(f"/v1/jobs/{job['id']}?wait=30&after_version=1")

        assert answer.json()["version"] == 2
        assert time.monotonic() - began < 5

    def test_without_a_change_the_same_version_comes_back(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        began = time.monotonic()

        answer = app_client.get(f"/v1/jobs/{job['id']}?wait=1")

        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert 0.9 < time.monotonic() - began < 10

    def test_nobody_waits_for_a_job_that_has_ended(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        app_client.post(f"/v1/jobs/{job['id']}/cancel")
        began = time.monotonic()

        answer = app_client.get(f"/v1/jobs/{job['id']}?wait=30&after_version=99")

        assert answer.json()["terminal"]
        assert time.monotonic() - began < 5

    def test_many_may_wait_without_a_thread_each(self, app_client: AppClient) -> None:
        job = app_client.submit(job_document())
        path = f"/v1/jobs/{job['id']}"
        versions: list[int] = []

        def wait() -> None:
            answer = app_client.get(f"{path}?wait=30&after_version=1")
            versions.append(answer.json()["version"])

        waiting = [threading.Thread(target=wait) for _ in range(60)]  # more than there are threads
        for thread in waiting:
            thread.start()
        streams = app_client.streams
        deadline = time.monotonic() + 20
        while streams.long_polls < 60 and time.monotonic() < deadline:
            time.sleep(0.01)

        assert streams.long_polls == 60
        assert app_client.patch(path, json={"priority": 7}).status_code == 200
        for thread in waiting:
            thread.join()
        assert versions == [2] * 60
        assert streams.long_polls == 0


class TestLists:
    """Pages, order and filters."""

    def test_pages_hold_everything_once_while_more_comes(self, app_client: AppClient) -> None:
        made = [app_client.submit(job_document(name=f"j{n}"))["id"] for n in range(7)]
        seen: list[str] = []
        path = "/v1/jobs?limit=3"

        for _ in range(3):
            page = app_client.get(path).json()
            assert page["object"] == "list"
            seen += [job["id"] for job in page["data"]]
            assert page["has_more"] == (page["next_cursor"] is not None)
            path = f"/v1/jobs?limit=3&after={page['next_cursor']}"
            app_client.submit(job_document(name="late"))

        assert seen == made[::-1]

    def test_the_oldest_may_come_first(self, app_client: AppClient) -> None:
        made = [app_client.submit(job_document())["id"] for _ in range(3)]

        first = app_client.get("/v1/jobs?order=asc&limit=2").json()
        second = app_client.get(f"/v1/jobs?order=asc&after={first['next_cursor']}").json()

        assert [job["id"] for job in first["data"] + second["data"]] == made

    def test_a_cursor_is_good_for_its_own_list_only(self, app_client: AppClient) -> None:
        for _ in range(2):
            app_client.submit(job_document())
        cursor = app_client.get("/v1/jobs?limit=1").json()["next_cursor"]

        for path in ("/v1/jobs?order=asc&", "/v1/keys?", "/v1/projects?"):
            answer = app_client.get(f"{path}after={cursor}")
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
        for changed in (cursor[:-1], cursor + "A", cursor.swapcase()):
            assert app_client.get(f"/v1/jobs?after={changed}").status_code == 400

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("", {"a", "b", "c"}),
            ("state=pending", {"a", "b"}),
            ("state=cancelled", {"c"}),
            ("state=cancelled,pending", {"a", "b", "c"}),
            ("state=running", set()),
            ("label=team:vision", {"a", "b"}),
            ("label=team:vision&label=size:big", {"b"}),
            ("label=team:text", set()),
            ("label=none:x", set()),
            ("label=org/unit.x:a:b", {"c"}),
            ("name=a", {"a"}),
            ("project=default", {"a", "b", "c"}),
            ("project=nowhere", set()),
            ("name=a&state=cancelled", set()),
        ],
    )
    def test_filters(self, app_client: AppClient, query: str, names: set[str]) -> None:
        app_client.submit(job_document(name="a", labels={"team": "vision"}))
        app_client.submit(job_document(name="b", labels={"team": "vision", "size": "big"}))
        ended = app_client.submit(job_document(name="c", labels={"org/unit.x": "a:b"}))
        app_client.post(f"/v1/jobs/{ended['id']}/cancel")

        page = app_client.get(f"/v1/jobs?{query}").json()

        assert {job["name"] for job in page["data"]} == names

    def test_a_page_costs_the_same_few_queries_however_long(self, app_client: AppClient) -> None:
        for _ in range(2):
            _run_quick(app_client)
        few = _count_queries(app_client, "/v1/jobs?limit=100")
        for _ in range(6):
            _run_quick(app_client)

        many = _count_queries(app_client, "/v1/jobs?limit=100")

        assert few == many <= 6


def _run_quick(client: AppClient) -> None:
    job = client.submit(job_document(workers=1))
    with client.database.write() as session:
        start_job(session, job["id"], add_node(session, name=job["id"]))


def _count_queries(client: AppClient, path: str) -> int:
    statements: list[str] = []

    def note(_c: object, _u: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(client.database.engine, "before_cursor_execute", note)
    try:
        assert client.get(path).status_code == 200
    finally:
        event.remove(client.database.engine, "before_cursor_execute", note)
    return len(statements)
