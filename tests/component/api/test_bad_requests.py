"""Whatever is sent: never a 500, always a problem document, nothing changed, nothing echoed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from models import Job
from tests.app_client import AppClient
from tests.factories import job_document

CANARY = "c4n4ry-in-the-request"
JSON = {"content-type": "application/json"}


def _check_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "instance", "code", "errors", "retryable"} <= set(problem)
    assert "Traceback" not in answer.text
    assert "sqlalchemy" not in answer.text.lower()
    return problem


def _count_jobs(client: AppClient) -> int:
    with client.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"{", 400, "malformed_json", id="cut off"),
        pytest.param(b"", 400, "malformed_json", id="nothing"),
        pytest.param(b"nonsense", 400, "malformed_json", id="not JSON"),
        pytest.param(b"\xff\xfe{}", 400, "malformed_json", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", 400, "malformed_json", id="byte order mark"),
        pytest.param(b'{"priority": NaN}', 400, "malformed_json", id="NaN"),
        pytest.param(b'{"priority": Infinity}', 400, "malformed_json", id="infinity"),
        pytest.param(b'{"priority": -Infinity}', 400, "malformed_json", id="minus infinity"),
        pytest.param(b'{"config": {"x": 1e999}}', 400, "malformed_json", id="1e999"),
        pytest.param(b'{"priority": 9223372036854775808}', 400, "malformed_json", id="2^63"),
        pytest.param(b'{"priority": -9223372036854775809}', 400, "malformed_json", id="-2^63-1"),
        pytest.param(b'{"x": ' + b"1" * 5000 + b"}", 400, "malformed_json", id="5000 digits"),
        pytest.param(b'{"name": "\\ud800"}', 400, "malformed_json", id="lone surrogate"),
        pytest.param(b'{"\\udfff": 1}', 400, "malformed_json", id="lone surrogate in a name"),
        pytest.param(b'{"name": "a\\u0000b"}', 400, "malformed_json", id="escaped NUL"),
        pytest.param(b'{"name": "a\x00b"}', 400, "malformed_json", id="raw NUL"),
        pytest.param(b'{"recipe": "a", "recipe": "b"}', 400, "malformed_json", id="name twice"),
        pytest.param(b"[" * 33 + b"]" * 33, 400, "malformed_json", id="33 levels"),
        pytest.param(b"[" * 100_000, 400, "malformed_json", id="100,000 levels"),
        pytest.param(
            b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "malformed_json", id="deep objects"
        ),
        pytest.param(b'"' + b"x" * 1_048_576 + b'"', 413, "too_large", id="more than 1 MiB"),
        pytest.param(b"[]", 422, "invalid_spec", id="a list"),
        pytest.param(b"null", 422, "invalid_spec", id="null"),
        pytest.param(b'"text"', 422, "invalid_spec", id="a text"),
        pytest.param(b"5", 422, "invalid_spec", id="a number"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/keys"])
def test_bodies(shared_client: AppClient, path: str, body: bytes, status: int, code: str) -> None:
    before = _count_jobs(shared_client)

    answer = shared_client.post(path, content=body, headers=JSON)

    problem = _check_problem(answer, status)
    wanted = "invalid" if code == "invalid_spec" and path == "/v1/keys" else code
    assert problem["code"] == wanted
    assert _count_jobs(shared_client) == before
    assert shared_client.post("/v1/jobs", json=job_document()).status_code == 201


def test_a_body_of_unknown_length_is_refused_beyond_the_limit(shared_client: AppClient) -> None:
    pieces = (b" " * 65536 for _ in range(64))

    answer = shared_client.post("/v1/jobs", content=pieces, headers=JSON)

    _check_problem(answer, 413)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=latin-1",
        "application/xml",
        "",
    ],
)
def test_bodies_that_do_not_say_that_they_are_json(shared_client: AppClient, kind: str) -> None:
    body = json.dumps(job_document()).encode()

    answer = shared_client.post("/v1/jobs", content=body, headers={"content-type": kind})

    assert _check_problem(answer, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8"])
def test_bodies_that_do(shared_client: AppClient, kind: str) -> None:
    body = json.dumps(job_document()).encode()

    answer = shared_client.post("/v1/jobs", content=body, headers={"content-type": kind})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=101",
        "limit=9223372036854775808",
        "limit=1e3",
        "limit=1_0",
        "limit=%2B5",
        "limit=%205",
        "limit=1.0",
        "limit=NaN",
        "limit=",
        "limit=1&limit=2",
        "after=",
        "after=x",
        "after=%00",
        "after=" + "A" * 600,
        "after=AAAAAAAAAAAAAAAAAAAAAAAA",
        "state=dancing",
        "state=running,",
        "state=%00",
        "label=team",
        "label=:x",
        "label=%22:x",
        "label=a:%00",
        "order=sideways",
        "offset=3",
        "limt=3",
        "name=" + "x" * 200,
        "name=%ff",
        "name=%ED%A0%80",
    ],
)
def test_queries_of_lists(shared_client: AppClient, query: str) -> None:
    problem = _check_problem(shared_client.get(f"/v1/jobs?{query}"), 400)

    assert problem["code"] in {"invalid_parameter", "bad_cursor"}


def test_an_unknown_parameter_is_answered_with_the_nearest_known_one(
    shared_client: AppClient,
) -> None:
    problem = _check_problem(shared_client.get("/v1/jobs?limt=3"), 400)

    assert problem["detail"].endswith("did you mean limit?")


@pytest.mark.parametrize("query", ["wait=61", "wait=-1", "wait=x", "after_version=-1",
                                   "after_version=9223372036854775808"])  # fmt: skip
def test_queries_of_one_job(shared_client: AppClient, query: str) -> None:
    job = shared_client.submit(job_document())

    _check_problem(shared_client.get(f"/v1/jobs/{job['id']}?{query}"), 400)


@pytest.mark.parametrize(
    "thing",
    [
        "job_00000000000000000000000000",
        "x",
        "%00",
        "a%00b",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "%ff",
        "%ed%a0%80",
        "%F0%9F%98%80",
        "1' OR '1'='1",
        "x" * 8000,
        "-1",
        "9223372036854775808",
        "null",
        ";",
        "%0d%0aset-cookie:x",
    ],
)
@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/jobs/{}/events/stream", "/v1/keys/{}",
     "/v1/nodes/{}", "/v1/pools/{}", "/v1/queues/{}", "/v1/recipes/{}", "/v1/projects/{}",
     "/v1/jobs/{}/attempts"],
)  # fmt: skip
def test_names_in_paths_that_name_nothing(shared_client: AppClient, path: str, thing: str) -> None:
    _check_problem(shared_client.get(path.format(thing)), 404)


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "hold", "release", "checkpoint",
                                    "fork", "rerun"])  # fmt: skip
def test_actions_on_nothing_and_with_bodies_they_do_not_take(
    shared_client: AppClient, action: str
) -> None:
    job = shared_client.submit(job_document())

    _check_problem(shared_client.post(f"/v1/jobs/job_x/{action}"), 404)
    path = f"/v1/jobs/{job['id']}/{action}"
    _check_problem(shared_client.post(path, json={"now": True}), 422)
    _check_problem(shared_client.post(path, json=[1]), 422)
    _check_problem(shared_client.post(path, content=b"{}", headers={"content-type": "x"}), 415)
    assert shared_client.get(f"/v1/jobs/{job['id']}").json()["version"] == 1


@pytest.mark.parametrize(
    "patch",
    [
        {"priority": None},
        {"priority": 1.0},
        {"priority": 101},
        {"name": None},
        {"name": ""},
        {"state": "running"},
        {"labels": {"a": 1}},
        {"labels": {"a b": "x"}},
        {"labels": []},
        {"labels": {f"k{i}": "v" for i in range(65)}},
        {"prioritty": 1},
        [],
    ],
)
def test_patches(shared_client: AppClient, patch: Any) -> None:
    job = shared_client.submit(job_document())

    answer = shared_client.patch(f"/v1/jobs/{job['id']}", json=patch)

    _check_problem(answer, 422)
    assert shared_client.get(f"/v1/jobs/{job['id']}").json() == job


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        pytest.param("idempotency-key", "", 400, id="empty idempotency key"),
        pytest.param("idempotency-key", "x" * 256, 400, id="long idempotency key"),
        pytest.param("idempotency-key", "a b", 400, id="space in an idempotency key"),
        pytest.param("content-length", "-5", 422, id="negative length"),
    ],
)
def test_headers_of_a_submit(shared_client: AppClient, name: str, value: str, status: int) -> None:
    answer = shared_client.post("/v1/jobs", json=job_document(), headers={name: value})

    _check_problem(answer, status)


@pytest.mark.parametrize("value", ["7", '"x', "x,y", '"a" "b"', "*x"])
def test_validators_that_are_no_etags(shared_client: AppClient, value: str) -> None:
    job = shared_client.submit(job_document())
    path = f"/v1/jobs/{job['id']}"

    _check_problem(shared_client.get(path, headers={"if-none-match": value}), 400)
    _check_problem(
        shared_client.patch(path, json={"priority": 1}, headers={"if-match": value}), 400
    )


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "٣"])
def test_event_ids_that_are_none(shared_client: AppClient, value: str) -> None:
    job = shared_client.submit(job_document())

    answer = shared_client.get(
        f"/v1/jobs/{job['id']}/events/stream", headers={b"last-event-id": value.encode()}
    )

    _check_problem(answer, 400)


@pytest.mark.parametrize(
    "name", ["Authorization", "Content-Type", "Idempotency-Key", "Host", "If-Match", "Origin"]
)
def test_headers_given_twice(shared_client: AppClient, name: str) -> None:
    twice = [(name, "a"), (name, "b")]

    answer = shared_client.anonymous().request("POST", "/v1/jobs", headers=twice)

    assert _check_problem(answer, 400)["code"] == "bad_request"


def test_nothing_that_was_sent_comes_back_in_a_problem(shared_client: AppClient) -> None:
    job = shared_client.submit(job_document())
    path = f"/v1/jobs/{job['id']}"
    answers = [
        shared_client.post("/v1/jobs", content=f'{{"name": {CANARY}', headers=JSON),
        shared_client.post("/v1/jobs", json=job_document(recipe=CANARY)),
        shared_client.post("/v1/jobs", json=job_document(pool=CANARY)),
        shared_client.post("/v1/jobs", json=job_document(begin_at=CANARY)),
        shared_client.post("/v1/jobs", json=job_document(sync={"mode": CANARY})),
        shared_client.post("/v1/jobs", json=job_document(config={"model": CANARY})),
        shared_client.post("/v1/jobs", json=job_document(project=CANARY)),
        shared_client.get(f"/v1/jobs/{CANARY}"),
        shared_client.get(f"/v1/jobs/{CANARY}/attempts"),
        shared_client.get(f"/v1/{CANARY}"),
        shared_client.get(f"/v1/jobs?state={CANARY}"),
        shared_client.get(f"/v1/jobs?{CANARY}=1"),
        shared_client.get(f"/v1/jobs?after={CANARY}"),
        shared_client.get(path, headers={"if-none-match": CANARY}),
        shared_client.post("/v1/sessions", json={"key": CANARY}),
        shared_client.with_key(CANARY).get("/v1/jobs"),
        shared_client.anonymous().get("/v1/jobs", headers={"host": f"{CANARY}.example"}),
    ]

    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert CANARY not in answer.text
        assert CANARY not in str(answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/jobs", 405),
        ("DELETE", "/v1/jobs", 405),
        ("OPTIONS", "/v1/jobs", 405),
        ("TRACE", "/v1/jobs", 405),
        ("BREW", "/v1/jobs", 405),
        ("GET", "/v1/jobs/validate/x", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/jobs/", 404),
        ("GET", "//v1/jobs", 404),
        ("POST", "/healthz", 405),
    ],
)
def test_methods_and_paths_that_are_none(
    shared_client: AppClient, method: str, path: str, status: int
) -> None:
    problem = _check_problem(shared_client.request(method, f"http://127.0.0.1:8700{path}"), status)

    if status == 405:
        assert problem["code"] == "method_not_allowed"


def test_a_method_that_is_not_allowed_is_told_those_that_are(shared_client: AppClient) -> None:
    answer = shared_client.put("/v1/jobs")

    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_head_is_get_without_the_body(shared_client: AppClient) -> None:
    job = shared_client.submit(job_document())
    path = f"/v1/jobs/{job['id']}"

    got, head = shared_client.get(path), shared_client.head(path)

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["etag"] == got.headers["etag"]
    assert head.headers["content-length"] == got.headers["content-length"]
    assert shared_client.head(f"{path}/events/stream").status_code == 200
    assert shared_client.head("/v1/jobs/x").status_code == 404
