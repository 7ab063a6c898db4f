"""Files: streamed to disk, hashed, read back in ranges, removed when nobody needs them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from api.files import routes
from api.housekeeping import run_once
from models import ApiKey, BrowserSession
from scheduler.core.spec import JobSpec
from tests.component.api_data.desk import Desk, ok, problem


def upload(desk: Desk, content: Any = b"zip", filename: str = "b.zip", **options: Any) -> Any:
    query = {"filename": filename, **options.pop("query", {})}
    headers = {**desk.admin, **options}
    return desk.http.post("/v1/files", params=query, content=content, headers=headers)


def stored(desk: Desk) -> list[str]:
    return sorted(path.name for path in (desk.storage.root / "files").iterdir())


@pytest.mark.parametrize("size_bytes", [0, 1, 1024 * 1024, 3 * 1024 * 1024 + 7])
def test_a_file_is_stored_as_it_was_sent(desk: Desk, size_bytes: int) -> None:
    data = b"\x00\xffab" * (size_bytes // 4) + b"c" * (size_bytes % 4)

    answer = upload(desk, data)

    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/files/{made['id']}")
    assert (made["size_bytes"], made["sha256"]) == (size_bytes, hashlib.sha256(data).hexdigest())
    assert desk.get(f"/v1/files/{made['id']}") == made
    assert desk.http.get(made["content_url"], headers=desk.admin).content == data
    head = desk.http.head(made["content_url"], headers=desk.admin)
    assert (head.content, head.headers["content-length"]) == (b"", str(size_bytes))


def test_a_file_may_come_without_its_length(desk: Desk) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 50_000

    assert ok(upload(desk, chunks()))["size_bytes"] == 2_500_000


def test_a_name_is_kept_whatever_it_says_and_never_becomes_a_path(desk: Desk) -> None:
    made = ok(upload(desk, filename='é "x";.zip'))

    answer = desk.http.get(made["content_url"], headers=desk.admin)

    assert made["filename"] == 'é "x";.zip'
    assert stored(desk) == [made["id"]]
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"_ _x_;.zip\"; filename*=UTF-8''%C3%A9%20%22x%22%3B.zip"
    )


def test_a_name_that_is_none_is_refused(desk: Desk) -> None:
    for filename in ("", "a/b", "a\\b", "a\nb", "a\0b", "x" * 256, "\u202egpj.exe", ".", ".."):
        assert upload(desk, filename=filename).status_code == 400, filename


def test_a_purpose_that_is_none_is_refused(desk: Desk) -> None:
    assert upload(desk, query={"purpose": "fun"}).status_code == 400


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_announced: bool
) -> None:
    monkeypatch.setitem(routes.BYTES_MAX, "code", 2_000_000)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    answer = upload(desk, b"x" * 2_000_001 if is_announced else chunks())

    assert problem(answer, 413) == "too_large"
    assert stored(desk) == []
    assert list((desk.storage.root / "staging").iterdir()) == []


def test_the_same_upload_again_is_the_same_file(desk: Desk) -> None:
    answers = [upload(desk, b"zip", **{"idempotency-key": "k"}) for _ in range(3)]

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [
        None,
        "true",
        "true",
    ]
    assert len(stored(desk)) == 1


def test_a_key_is_good_for_one_upload_only(desk: Desk) -> None:
    made = ok(upload(desk, b"zip", **{"idempotency-key": "k"}))

    assert (
        problem(upload(desk, b"other", **{"idempotency-key": "k"}), 422) == "idempotency_mismatch"
    )

    assert stored(desk) == [made["id"]]


def test_many_equal_uploads_at_once_make_one_file(desk: Desk) -> None:
    answers: list[Any] = []

    def send() -> None:
        answers.append(upload(desk, b"zip" * 1000, **{"idempotency-key": "k"}))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(stored(desk)) == 1


def test_a_job_gets_its_code_and_inputs_and_no_other_file(desk: Desk) -> None:
    code, data, foreign = (ok(upload(desk, name.encode())) for name in ("code", "data", "foreign"))
    spec = JobSpec(
        code=code["id"], entrypoint="train.py", args=("--fast",), inputs={"train": data["id"]}
    )
    supervisor = desk.launch(spec)

    document = supervisor.assignment()

    assert document["command"] == {
        "kind": "script", "path": "train.py", "module": None, "args": ["--fast"],
    }  # fmt: skip
    assert (document["code"]["sha256"], document["code"]["filename"]) == (code["sha256"], "b.zip")
    (given,) = document["inputs"]
    assert (given["name"], given["kind"], given["sha256"]) == ("train", "file", data["sha256"])
    assert supervisor.call("GET", document["code"]["url"]).content == b"code"
    assert supervisor.call("GET", given["url"]).content == b"data"
    assert supervisor.call("GET", f"files/{foreign['id']}").status_code == 404


def test_a_file_stays_while_a_job_that_has_not_ended_needs_it(desk: Desk) -> None:
    made = ok(upload(desk))
    supervisor = desk.launch(JobSpec(code=made["id"], entrypoint="train.py"))
    path = f"/v1/files/{made['id']}"

    assert problem(desk.http.delete(path, headers=desk.admin), 409) == "file_in_use"

    ok(supervisor.exit())
    assert desk.http.delete(path, headers=desk.admin).status_code == 204
    assert desk.http.get(path, headers=desk.admin).status_code == 404
    assert stored(desk) == []


def test_files_of_another_project_do_not_exist(desk: Desk) -> None:
    made = ok(upload(desk))
    stranger = desk.add_project("other")
    path = f"/v1/files/{made['id']}"

    answers = [
        desk.http.request(method, url, headers=stranger)
        for method, url in [("GET", path), ("GET", f"{path}/content"), ("DELETE", path)]
    ]

    assert {problem(answer, 404) for answer in answers} == {"not_found"}
    assert desk.http.get("/v1/files", headers=stranger).json()["data"] == []


def test_files_are_listed_newest_first_in_pages(desk: Desk) -> None:
    made = [ok(upload(desk, str(index).encode()))["id"] for index in range(3)]

    first = desk.get("/v1/files", limit=2)
    second = desk.get("/v1/files", limit=2, after=first["next_cursor"])

    assert [each["id"] for page in (first, second) for each in page["data"]] == made[::-1]


def test_expired_records_and_sessions_go_and_others_stay(desk: Desk) -> None:
    ok(upload(desk, b"zip", **{"idempotency-key": "k"}))
    now = datetime.now(UTC)
    with desk.database.write() as session:
        key_id = session.scalars(select(ApiKey.id)).one()
        session.add_all(
            BrowserSession(
                key_id=key_id, secret_sha256=str(hours), created_at=now, expires_at=now + hours
            )
            for hours in (timedelta(hours=1), timedelta(hours=48))
        )

    early = run_once(desk.database, desk.storage, now)
    late = run_once(desk.database, desk.storage, now + timedelta(hours=25))

    assert (early.idempotency_records, early.browser_sessions) == (0, 0)
    assert (late.idempotency_records, late.browser_sessions) == (1, 1)
    assert len(stored(desk)) == 1


def test_young_bytes_without_a_row_are_left_alone(desk: Desk) -> None:
    orphan = desk.storage.root / "files" / ("file_" + "0" * 26)
    orphan.write_bytes(b"about to get its row")

    assert run_once(desk.database, desk.storage, datetime.now(UTC)).orphans == 0
    assert (
        run_once(desk.database, desk.storage, datetime.now(UTC) + timedelta(hours=2)).orphans == 1
    )
    assert not orphan.exists()
