"""Checkpoints: whole or absent, kept as the policy says, never lost while they are needed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from api.housekeeping import run_once
from api.storage import LocalStorage, ObjectKey
from models import Attempt, Checkpoint, CheckpointFile, CheckpointState, Job
from models.queries.attempts import end_attempt
from models.queries.checkpoints import find_resume_checkpoint
from scheduler.core.errors import OutOfStorage, Unavailable
from scheduler.core.retry import AttemptEnd
from scheduler.core.spec import CheckpointPolicy, JobSpec, KeepBest, RetrySpec
from tests.component.api_data.desk import ONE, Desk, Supervisor, ok, problem

KEEP = JobSpec(
    recipe="image-classifier",
    workers=1,
    checkpoint=CheckpointPolicy(
        every_steps=1, keep_last=2, keep_best=KeepBest(metric="acc", count=1)
    ),
    retry=RetrySpec(max_user_failures=9, backoff_seconds=0),
)
FILES = {"model.safetensors": b"weights" * 500, "state/optim.bin": b"", "state/rng é.json": b"{}"}


def listed(desk: Desk, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = desk.get(f"/v1/jobs/{job_id}/checkpoints")["data"]
    return found


def steps(desk: Desk, job_id: str) -> list[int]:
    return [each["step"] for each in listed(desk, job_id)]


def find_resume_step(desk: Desk, job_id: str) -> int | None:
    with desk.database.read() as session:
        found = find_resume_checkpoint(session, session.get_one(Job, job_id))
    return None if found is None else found.step


def damage(storage: LocalStorage, checkpoint: dict[str, Any]) -> None:
    """Turn one bit of the first file that has any."""
    sha256 = next(each["sha256"] for each in checkpoint["files"] if each["size_bytes"])
    path = storage.path(ObjectKey(checkpoint["id"], sha256))
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def test_a_checkpoint_is_listed_with_its_metrics_and_hashes_once_committed(desk: Desk) -> None:
    supervisor = desk.launch(ONE)

    saved = supervisor.save(100, FILES, {"val/accuracy": 0.97, "val/loss": "NaN"})

    assert listed(desk, supervisor.job_id) == [saved]
    assert desk.get(f"/v1/checkpoints/{saved['id']}") == saved
    assert saved["metrics"] == {"val/accuracy": 0.97, "val/loss": "NaN"}
    assert {each["path"]: each["sha256"] for each in saved["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }
    assert saved["size_bytes"] == sum(map(len, FILES.values()))
    assert "checkpoint.committed" in desk.world.history(supervisor.job_id)


def test_every_file_downloads_whole_and_in_ranges(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, FILES)

    for each in saved["files"]:
        data = FILES[each["path"]]
        whole = desk.http.get(each["url"], headers=desk.admin)
        assert whole.content == data
        assert whole.headers["content-type"] == "application/octet-stream"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert whole.headers["content-disposition"].startswith("attachment; ")
        head = desk.http.head(each["url"], headers=desk.admin)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(data)))
    url, data = saved["files"][0]["url"], FILES["model.safetensors"]
    part = desk.http.get(url, headers={**desk.admin, "range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, data[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{len(data)}"
    assert part.headers["etag"] == f'"{saved["files"][0]["sha256"]}"'


def test_a_download_is_resumed_only_if_the_bytes_are_the_same(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, FILES)
    url, etag = saved["files"][0]["url"], f'"{saved["files"][0]["sha256"]}"'
    ranged = {**desk.admin, "range": "bytes=5-"}

    assert desk.http.get(url, headers={**ranged, "if-range": etag}).status_code == 206
    assert desk.http.get(url, headers={**ranged, "if-range": '"x"'}).status_code == 200
    assert desk.http.get(url, headers={**desk.admin, "if-none-match": etag}).status_code == 304


def test_a_range_outside_of_the_file_is_refused(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, FILES)
    url = saved["files"][0]["url"]

    answer = desk.http.get(url, headers={**desk.admin, "range": "bytes=99999-"})

    assert problem(answer, 416) == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{len(FILES['model.safetensors'])}"


def test_the_archive_is_a_tar_of_all_files_with_a_known_length(desk: Desk) -> None:
    saved = desk.launch(ONE).save(7, FILES)

    answer = desk.http.get(saved["archive_url"], headers=desk.admin)

    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        content = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]  # files only
            for member in archive.getmembers()
        }
    assert content == {f"step-7/{path}": data for path, data in FILES.items()}
    head = desk.http.head(saved["archive_url"], headers=desk.admin)
    assert (head.content, head.headers["etag"]) == (b"", answer.headers["etag"])


def test_beginning_again_names_only_what_is_still_missing(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    begun = ok(supervisor.begin(1, FILES))
    first, *others = begun["uploads"]
    assert supervisor.call("PUT", first["url"], content=FILES[first["path"]]).status_code == 204

    again = ok(supervisor.begin(1, FILES))

    assert again["checkpoint_id"] == begun["checkpoint_id"]
    assert again["uploads"] == others
    assert problem(supervisor.commit(begun["checkpoint_id"]), 409) == "files_missing"
    assert listed(desk, supervisor.job_id) == []


def test_a_checkpoint_that_has_come_and_gone_is_not_uploaded_again(desk: Desk) -> None:
    supervisor = desk.launch(KEEP)
    first = supervisor.save(1, FILES)
    for step in (2, 3):
        supervisor.save(step)

    again = ok(supervisor.begin(1, FILES))

    assert again == {"checkpoint_id": first["id"], "state": "committed", "uploads": []}
    assert steps(desk, supervisor.job_id) == [3, 2]


def test_the_same_name_with_other_files_is_refused(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    body = {"name": "ready-1", "step": 1, "metrics": {}}
    file = {"path": "m", "size_bytes": 1, "sha256": "a" * 64}
    ok(supervisor.call("POST", "checkpoints", json={**body, "files": [file]}))

    answer = supervisor.call(
        "POST", "checkpoints", json={**body, "files": [{**file, "size_bytes": 2}]}
    )

    assert problem(answer, 409) == "manifest_mismatch"


def test_other_bytes_than_the_manifest_says_are_refused(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    begun = ok(supervisor.begin(1, {"m": b"weights"}))

    for sent in (b"weight", b"weightss", b"Weights"):
        answer = supervisor.call("PUT", begun["uploads"][0]["url"], content=sent)
        assert problem(answer, 422) == "wrong_bytes"

    assert list(desk.storage.root.rglob("*/*/*")) == []
    supervisor.save(1, {"m": b"weights"})


def test_more_bytes_than_announced_are_cut_off(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    begun = ok(supervisor.begin(1, {"m": b"weights"}))

    def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 65_536

    answer = supervisor.call("PUT", begun["uploads"][0]["url"], content=chunks())

    assert problem(answer, 413) == "too_large"
    assert list((desk.storage.root / "staging").iterdir()) == []


def test_a_manifest_with_a_bad_path_is_refused(desk: Desk) -> None:
    supervisor = desk.launch(ONE)

    for path in ("../../etc/passwd", "/etc/passwd", "a//b", "a\\b", "", ".", "a\0b", "x" * 600):
        file = {"path": path, "size_bytes": 1, "sha256": "a" * 64}
        body = {"name": "ready-1", "step": 1, "metrics": {}, "files": [file]}
        answer = supervisor.call("POST", "checkpoints", json=body)
        assert answer.status_code in {400, 422}, path


def test_no_path_leads_out_of_a_checkpoint(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, FILES)

    for path in (
        "..%2f..%2ftest.db",
        "%2e%2e/%2e%2e/test.db",
        "%252e%252e%252ftest.db",
        "/etc/passwd",
        "..%5c..%5ctest.db",
        "model.safetensors%00",
        "model.safetensors;x",
    ):
        url = f"/v1/checkpoints/{saved['id']}/files/{path}"
        assert desk.http.get(url, headers=desk.admin).status_code == 404, path


def test_the_policy_keeps_the_newest_and_the_best(desk: Desk) -> None:
    supervisor = desk.launch(KEEP)

    for step, accuracy in [(1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6), (5, "NaN")]:
        supervisor.save(step, metrics={"acc": accuracy})

    assert steps(desk, supervisor.job_id) == [5, 4, 2]
    assert len(list((desk.storage.root / "checkpoints").iterdir())) == 3


def test_a_pinned_checkpoint_stays(desk: Desk) -> None:
    supervisor = desk.launch(KEEP)
    first = supervisor.save(1)
    ok(desk.http.post(f"/v1/checkpoints/{first['id']}/pin", headers=desk.admin))

    for step in (2, 3, 4):
        supervisor.save(step)

    assert steps(desk, supervisor.job_id) == [4, 3, 1]
    ok(desk.http.post(f"/v1/checkpoints/{first['id']}/unpin", headers=desk.admin))
    supervisor.save(5)
    assert steps(desk, supervisor.job_id) == [5, 4]


def test_the_checkpoint_that_an_attempt_resumes_from_stays_and_can_be_fetched(desk: Desk) -> None:
    node = desk.join()
    first = desk.launch(KEEP, node)
    first.save(1, FILES)
    ok(first.exit("failed", "UserCodeError"))
    desk.schedule()
    second = node.take(first.job_id)

    resume = second.assignment()["resume"]
    for step in (2, 3, 4):
        second.save(step)

    assert resume["step"] == 1
    assert steps(desk, first.job_id) == [4, 3, 1]
    for each in resume["files"]:
        assert second.call("GET", each["url"]).content == FILES[each["path"]]


def test_what_an_attempt_resumed_from_goes_when_it_has_ended(desk: Desk) -> None:
    node = desk.join()
    first = desk.launch(KEEP, node)
    first.save(1)
    ok(first.exit("failed", "UserCodeError"))
    desk.schedule()
    second = node.take(first.job_id)
    for step in (2, 3, 4):
        second.save(step)

    ok(second.exit("succeeded"))

    assert steps(desk, first.job_id) == [4, 3]
    assert len(list((desk.storage.root / "checkpoints").iterdir())) == 2


def test_what_a_lost_attempt_resumed_from_goes_with_the_next_round(desk: Desk) -> None:
    node = desk.join()
    first = desk.launch(KEEP, node)
    first.save(1)
    ok(first.exit("failed", "UserCodeError"))
    desk.schedule()
    second = node.take(first.job_id)
    for step in (2, 3, 4):
        second.save(step)
    with desk.database.write() as session:
        attempt = session.get_one(Attempt, second.attempt_id)
        end_attempt(session, attempt, AttemptEnd(outcome="lost"), now=desk.world.now)

    swept = run_once(desk.database, desk.storage, desk.world.now)

    assert swept.checkpoints == 1
    assert steps(desk, first.job_id) == [4, 3]


def test_the_checkpoint_that_a_waiting_job_names_stays(desk: Desk) -> None:
    supervisor = desk.launch(KEEP)
    first = supervisor.save(1)
    desk.submit(JobSpec(recipe="image-classifier", workers=1, resume_from=first["id"], hold=True))

    for step in (2, 3, 4):
        supervisor.save(step)

    assert steps(desk, supervisor.job_id) == [4, 3, 1]
    answer = desk.http.delete(f"/v1/checkpoints/{first['id']}", headers=desk.admin)
    assert problem(answer, 409) == "checkpoint_in_use"


def test_the_newest_of_the_newest_attempt_is_resumed_from(desk: Desk) -> None:
    node = desk.join()
    first = desk.launch(KEEP, node)
    first.save(10)
    first.save(20)
    ok(first.exit("failed", "UserCodeError"))
    desk.schedule()
    second = node.take(first.job_id)
    assert second.assignment()["resume"]["step"] == 20

    second.save(15)

    assert find_resume_step(desk, first.job_id) == 15
    assert steps(desk, first.job_id) == [15, 20]


def test_a_first_attempt_starts_where_the_spec_says(desk: Desk) -> None:
    node = desk.join()
    saved = desk.launch(KEEP, node).save(10)
    forked = desk.launch(
        JobSpec(recipe="image-classifier", workers=1, resume_from=saved["id"]), node
    )

    resume = forked.assignment()["resume"]

    assert (resume["checkpoint_id"], resume["step"]) == (saved["id"], 10)
    assert forked.call("GET", resume["files"][0]["url"]).content == b"weights of 10"


def test_verifying_finds_a_turned_bit_and_the_checkpoint_is_resumed_from_no_more(
    desk: Desk,
) -> None:
    supervisor = desk.launch(KEEP)
    supervisor.save(1, FILES)
    newer = supervisor.save(2, {"m": b"newer"})
    path = f"/v1/checkpoints/{newer['id']}"
    assert ok(desk.http.post(f"{path}/verify", headers=desk.admin))["intact"] is True
    assert desk.get(path)["verified_at"] is not None

    damage(desk.storage, newer)
    verdict = ok(desk.http.post(f"{path}/verify", headers=desk.admin))

    assert (verdict["intact"], verdict["damaged_paths"], verdict["state"]) == (
        False,
        ["m"],
        "corrupt",
    )
    assert steps(desk, supervisor.job_id) == [1]
    assert find_resume_step(desk, supervisor.job_id) == 1
    assert "checkpoint.corrupt" in desk.world.history(supervisor.job_id)


def test_bytes_that_are_cut_short_are_not_sent(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, {"m": b"weights"})
    desk.storage.path(ObjectKey(saved["id"], saved["files"][0]["sha256"])).write_bytes(b"weig")

    answer = desk.http.get(saved["files"][0]["url"], headers=desk.admin)

    assert problem(answer, 409) == "damaged_bytes"


def test_the_newest_of_a_live_job_cannot_be_deleted_others_can(desk: Desk) -> None:
    supervisor = desk.launch(KEEP)
    older, newest = supervisor.save(1), supervisor.save(2)

    answers = [
        desk.http.delete(f"/v1/checkpoints/{each['id']}", headers=desk.admin)
        for each in (newest, older, older)
    ]

    assert problem(answers[0], 409) == "checkpoint_in_use"
    assert [answer.status_code for answer in answers[1:]] == [204, 404]
    ok(supervisor.exit())
    assert (
        desk.http.delete(f"/v1/checkpoints/{newest['id']}", headers=desk.admin).status_code == 204
    )
    assert list((desk.storage.root / "checkpoints").iterdir()) == []


def test_a_disk_that_fails_to_delete_costs_no_commit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = desk.launch(
        JobSpec(recipe="image-classifier", workers=1, checkpoint=CheckpointPolicy(keep_last=1))
    )
    supervisor.save(1)

    def fail(_storage: LocalStorage, _owner_id: str) -> None:
        raise Unavailable("injected")

    monkeypatch.setattr(LocalStorage, "delete", fail)
    supervisor.save(2)
    monkeypatch.undo()

    assert steps(desk, supervisor.job_id) == [2]
    assert run_once(desk.database, desk.storage, desk.world.now).checkpoints == 1


def test_a_full_disk_is_said_as_such_and_the_upload_goes_through_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = desk.launch(ONE)
    begun = ok(supervisor.begin(1, {"m": b"weights"}))

    def fail(*_args: object, **_more: object) -> None:
        raise OutOfStorage("the disk is full")

    monkeypatch.setattr(LocalStorage, "keep", fail)
    answer = supervisor.call("PUT", begun["uploads"][0]["url"], content=b"weights")
    monkeypatch.undo()

    assert problem(answer, 507) == "out_of_storage"
    assert answer.json()["retryable"] is True
    supervisor.save(1, {"m": b"weights"})


def test_two_files_with_the_same_content_are_both_there(desk: Desk) -> None:
    saved = desk.launch(ONE).save(1, {"a": b"same", "b": b"same"})

    contents = {desk.http.get(each["url"], headers=desk.admin).content for each in saved["files"]}

    assert (len(saved["files"]), contents) == (2, {b"same"})


def test_an_attempt_cannot_touch_the_checkpoints_of_another(desk: Desk) -> None:
    node = desk.join()
    mine, other = desk.launch(ONE, node), desk.launch(ONE, node)
    begun = ok(other.begin(1, {"m": b"weights"}))
    saved = other.save(2)
    route = f"checkpoints/{begun['checkpoint_id']}"

    answers = [
        mine.call("PUT", f"{route}/files/m", content=b"weights"),
        mine.call("POST", f"{route}/commit"),
        mine.call("GET", f"checkpoints/{saved['id']}/files/model.bin"),
    ]

    assert {problem(answer, 404) for answer in answers} == {"not_found"}


def test_checkpoints_of_another_project_do_not_exist(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    saved = supervisor.save(1)
    stranger = desk.add_project("other")
    path = f"/v1/checkpoints/{saved['id']}"

    answers = [
        desk.http.request(method, url, headers=stranger)
        for method, url in [
            ("GET", f"/v1/jobs/{supervisor.job_id}/checkpoints"),
            ("GET", path),
            ("GET", saved["files"][0]["url"]),
            ("GET", saved["archive_url"]),
            ("POST", f"{path}/pin"),
            ("POST", f"{path}/unpin"),
            ("POST", f"{path}/verify"),
            ("DELETE", path),
        ]
    ]

    assert {problem(answer, 404) for answer in answers} == {"not_found"}
    assert len(listed(desk, supervisor.job_id)) == 1


def test_pages_of_checkpoints_hold_each_once(desk: Desk) -> None:
    spec = JobSpec(recipe="image-classifier", workers=1, checkpoint=CheckpointPolicy(keep_last=9))
    supervisor = desk.launch(spec)
    for step in range(1, 6):
        supervisor.save(step)
    path = f"/v1/jobs/{supervisor.job_id}/checkpoints"

    first = desk.get(path, limit=2)
    second = desk.get(path, limit=2, after=first["next_cursor"])
    third = desk.get(path, limit=2, after=second["next_cursor"])

    found = [each["step"] for page in (first, second, third) for each in page["data"]]
    assert found == [5, 4, 3, 2, 1]
    assert (third["has_more"], third["next_cursor"]) == (False, None)


def test_what_an_ended_attempt_left_uploading_is_removed(desk: Desk, tmp_path: Path) -> None:
    supervisor = desk.launch(ONE)
    kept = supervisor.save(1)
    begun = ok(supervisor.begin(2, {"m": b"weights"}))
    supervisor.call("PUT", begun["uploads"][0]["url"], content=b"weights")
    assert run_once(desk.database, desk.storage, desk.world.now).checkpoints == 0

    ok(supervisor.exit())

    assert run_once(desk.database, desk.storage, desk.world.now).checkpoints == 1
    with desk.database.read() as session:
        assert session.get(Checkpoint, begun["checkpoint_id"]) is None
        assert session.get(CheckpointFile, (begun["checkpoint_id"], "m")) is None
        row = session.get_one(Checkpoint, kept["id"])
    assert row.state is CheckpointState.COMMITTED
    assert [path.name for path in (desk.storage.root / "checkpoints").iterdir()] == [kept["id"]]


def test_a_manifest_may_have_ten_thousand_files(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    empty = hashlib.sha256(b"").hexdigest()
    files = [
        {"path": f"{'shard/' * 10}{index:05d}.bin", "size_bytes": 0, "sha256": empty}
        for index in range(10_000)
    ]
    body = {"name": "ready-1", "step": 1, "metrics": {}, "files": files}

    begun = ok(supervisor.call("POST", "checkpoints", json=body))
    supervisor.call("PUT", begun["uploads"][0]["url"], content=b"")

    assert len(begun["uploads"]) == 10_000
    assert len(ok(supervisor.commit(begun["checkpoint_id"]))["files"]) == 10_000


def test_supervisors_may_not_have_too_many_uploads_open(desk: Desk) -> None:
    supervisor: Supervisor = desk.launch(ONE)
    for step in range(64):
        ok(supervisor.begin(step, {"m": b"x"}))

    assert problem(supervisor.begin(64, {"m": b"x"}), 409) == "conflict"
