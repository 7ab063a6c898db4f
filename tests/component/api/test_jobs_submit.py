"""Submitting: what is stored and answered, and everything that is refused."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import func, select, update

from models import Checkpoint, CheckpointState, Event, File, Job, Node, Project
from models.database import Database
from tests.app_client import AppClient
from tests.factories import NOW, add_checkpoint, add_node, job_document, start_job


def _add_file(database: Database, project: str = "default") -> str:
    with database.write() as session:
        project_id = session.scalars(select(Project.id).where(Project.name == project)).one()
        file = File(
            project_id=project_id,
            filename="code.zip",
            purpose="code",
            size_bytes=1,
            sha256="0" * 64,
            created_at=NOW,
        )
        session.add(file)
        session.flush()
        return file.id


def _problems(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


def _count_jobs(client: AppClient) -> int:
    with client.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def test_a_submitted_job_is_stored_with_its_first_event(app_client: AppClient) -> None:
    answer = app_client.post("/v1/jobs", json=job_document(name="digits", labels={"team": "a"}))

    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"].startswith('"1.')
    assert (job["state"], job["reason"], job["version"]) == ("pending", "Submitted", 1)
    assert (job["name"], job["project"], job["labels"]) == ("digits", "default", {"team": "a"})
    assert job["spec"]["checkpoint"]["keep_last"] == 2
    again = app_client.get(answer.headers["location"])
    assert again.json() == job
    assert again.headers["etag"] == answer.headers["etag"]
    events = app_client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [(event["seq"], event["type"]) for event in events] == [(1, "job.pending")]


def test_everything_wrong_is_told_at_once_with_its_pointer(app_client: AppClient) -> None:
    document = {
        "recipe": "image-classifier",
        "wrokers": 2,
        "config": {"epcohs": 3, "lr": -1},
        "retry": {"max_user_failures": "many"},
        "inputs": {"data": "file_00000000000000000000000000", "extra": "dir:/etc"},
        "env": {"RANK": "0"},
        "pool": "nowhere",
        "resume_from": "ckpt_00000000000000000000000000",
        "project": "other",
    }

    answer = app_client.post("/v1/jobs", json=document)

    assert _problems(answer) == {
        "/wrokers": "unknown_field",
        "/config/epcohs": "unknown_field",
        "/config/lr": "out_of_range",
        "/retry/max_user_failures": "int_type",
        "/inputs/data": "unknown_file",
        "/inputs/extra": "unknown_input",
        "/env/RANK": "reserved_name",
        "/pool": "unknown_pool",
        "/resume_from": "unknown_checkpoint",
        "/project": "unknown_project",
    }
    by_pointer = {error["pointer"]: error["message"] for error in answer.json()["errors"]}
    assert by_pointer["/wrokers"].endswith("did you mean workers?")
    assert by_pointer["/config/epcohs"].endswith("did you mean epochs?")
    assert _count_jobs(app_client) == 0


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        pytest.param({}, "", id="nothing to run"),
        pytest.param([], "", id="not an object"),
        pytest.param({"recipe": "x", "code": "file_1"}, "/code", id="two sources"),
        pytest.param(job_document(recipe="nope"), "/recipe", id="unknown recipe"),
        pytest.param(job_document(name=""), "/name", id="empty name"),
        pytest.param(job_document(name="x" * 129), "/name", id="name too long"),
        pytest.param(job_document(name="a\nb"), "/name", id="control character in a name"),
        pytest.param(job_document(name=5), "/name", id="number for a text"),
        pytest.param(job_document(workers="2"), "/workers", id="text for a number"),
        pytest.param(job_document(workers=2.0), "/workers", id="float for an integer"),
        pytest.param(job_document(workers=True), "/workers", id="boolean for an integer"),
        pytest.param(job_document(workers=0), "/workers", id="no workers"),
        pytest.param(job_document(workers=-1), "/workers", id="negative workers"),
        pytest.param(job_document(workers=4097), "/workers", id="too many workers"),
        pytest.param(job_document(workers=2**63 - 1), "/workers", id="2^63 - 1 workers"),
        pytest.param(job_document(priority=101), "/priority", id="priority above 100"),
        pytest.param(job_document(priority=-1), "/priority", id="negative priority"),
        pytest.param(job_document(hold="yes"), "/hold", id="text for a boolean"),
        pytest.param(job_document(hold=1), "/hold", id="number for a boolean"),
        pytest.param(job_document(labels={"a b": "c"}), "/labels/a b", id="label key with space"),
        pytest.param(job_document(labels={"a": 1}), "/labels/a", id="label value not a text"),
        pytest.param(
            job_document(labels={f"k{i}": "v" for i in range(65)}), "/labels", id="65 labels"
        ),
        pytest.param(
            job_document(env={f"K{i}": "v" for i in range(129)}), "/env", id="129 variables"
        ),
        pytest.param(
            job_document(env={f"K{i}": "v" * 4096 for i in range(9)}), "/env", id="env of 36 KiB"
        ),
        pytest.param(job_document(env={"A=B": "v"}), "/env/A=B", id="bad variable name"),
        pytest.param(job_document(env={"TRAINMASTER_X": "v"}), "/env/TRAINMASTER_X", id="ours"),
        pytest.param(job_document(args=["x" * 4097]), "/args/0", id="argument too long"),
        pytest.param(job_document(args="x"), "/args", id="text for a list"),
        pytest.param(job_document(begin_at="tomorrow"), "/begin_at", id="not an instant"),
        pytest.param(job_document(begin_at="2031-01-01T00:00:00"), "/begin_at", id="no zone"),
        pytest.param(job_document(begin_at=1), "/begin_at", id="number for an instant"),
        pytest.param(job_document(begin_at="9999-99-99T99:99:99Z"), "/begin_at", id="no such day"),
        pytest.param(
            job_document(begin_at="0001-01-01T00:00:00+14:00"), "/begin_at", id="before year 1"
        ),
        pytest.param(
            job_document(begin_at="9999-12-31T23:59:59-14:00"), "/begin_at", id="after year 9999"
        ),
        pytest.param(job_document(resources={"cpus": 0}), "/resources/cpus", id="no CPU"),
        pytest.param(job_document(resources={"gpus": -1}), "/resources/gpus", id="negative GPUs"),
        pytest.param(job_document(resources={"gpu": 1}), "/resources/gpu", id="mistyped resource"),
        pytest.param(job_document(resources=None), "/resources", id="null for an object"),
        pytest.param(job_document(parallel={"data": 3}), "/workers", id="layout mismatch"),
        pytest.param(job_document(parallel={"tensor": 2}), "/parallel/tensor", id="not available"),
        pytest.param(job_document(sync={"mode": "magic"}), "/sync/mode", id="unknown mode"),
        pytest.param(job_document(sync={"mode": "gossip"}), "/sync/mode", id="mode to come"),
        pytest.param(job_document(sync={"every": 4}), "/sync/every", id="not of this mode"),
        pytest.param(job_document(secrets=["X"]), "/secrets", id="secrets to come"),
        pytest.param(job_document(queue="fast"), "/queue", id="unknown queue"),
        pytest.param(job_document(code="../../etc"), "/code", id="path for a file id"),
        pytest.param(
            {"code": "file_1", "entrypoint": "../x.py"}, "/entrypoint", id="path out of the bundle"
        ),
        pytest.param(
            job_document(environment={"requirements": ["--index-url=http://x"]}),
            "/environment/requirements/0",
            id="option for a requirement",
        ),
        pytest.param(
            job_document(environment={"python": "2.7"}), "/environment/python", id="old python"
        ),
        pytest.param(
            job_document(inputs={"data": "dir:/datasets/../etc"}), "/inputs/data", id="dotdot"
        ),
        pytest.param(job_document(inputs={"data": "x"}), "/inputs/data", id="neither file nor dir"),
        pytest.param(
            job_document(checkpoint={"every_seconds": None}),
            "/checkpoint/every_seconds",
            id="no checkpoints at all",
        ),
        pytest.param(job_document(config={"epochs": 1.5}), "/config/epochs", id="float for epochs"),
        pytest.param(
            job_document(config={"model": "gpt"}), "/config/model", id="not one of the models"
        ),
        pytest.param(job_document(config=[1]), "/config", id="list for the config"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(
    shared_client: AppClient, document: Any, pointer: str
) -> None:
    answer = shared_client.post("/v1/jobs", json=document)

    assert pointer in _problems(answer)
    assert all(error["message"] for error in answer.json()["errors"])
    assert _count_jobs(shared_client) == 0
    told = shared_client.post("/v1/jobs/validate", json=document).json()
    assert (told["valid"], told["spec"]) == (False, None)
    assert told["errors"] == [{**error, "parameter": None} for error in answer.json()["errors"]]


def test_a_bad_field_does_not_accuse_its_neighbours(app_client: AppClient) -> None:
    answer = app_client.post("/v1/jobs", json=job_document(recipe=5, workers="x"))

    assert set(_problems(answer)) == {"/recipe", "/workers"}


def test_validate_tells_the_whole_spec_and_stores_nothing(app_client: AppClient) -> None:
    told = app_client.post("/v1/jobs/validate", json=job_document()).json()

    assert told["valid"]
    assert told["errors"] == []
    assert told["spec"]["priority"] == 50
    assert _count_jobs(app_client) == 0


def test_a_gang_larger_than_the_pool_is_refused_with_what_would_fit(app_client: AppClient) -> None:
    with app_client.database.write() as session:
        add_node(session)

    answer = app_client.post("/v1/jobs", json=job_document(workers=3))

    assert _problems(answer) == {"/workers": "gang_too_large"}
    assert app_client.post("/v1/jobs", json=job_document(workers=2)).status_code == 201


def test_room_that_has_just_come_counts_at_once(app_client: AppClient) -> None:
    with app_client.database.write() as session:
        add_node(session)
    assert app_client.post("/v1/jobs", json=job_document(workers=4)).status_code == 422
    with app_client.database.write() as session:
        session.execute(
            update(Node).values(capacity={"cpu_milli": 4000, "memory_mib": 8192, "gpus": []})
        )

    assert app_client.post("/v1/jobs", json=job_document(workers=4)).status_code == 201


def test_code_and_inputs_must_lie_in_the_own_project(app_client: AppClient) -> None:
    app_client.make_project("vision")
    member = app_client.with_key(app_client.make_key(project="vision"))
    theirs = _add_file(app_client.database)
    ours = _add_file(app_client.database, "vision")
    document = {"code": theirs, "entrypoint": "train.py", "inputs": {"a": theirs}}

    refused = member.post("/v1/jobs", json=document)
    unknown = member.post(
        "/v1/jobs", json={**document, "code": f"{theirs[:-1]}~".replace("~", "0")}
    )
    taken = member.post("/v1/jobs", json={"code": ours, "entrypoint": "train.py"})

    assert _problems(refused) == {"/code": "unknown_file", "/inputs/a": "unknown_file"}
    assert _problems(unknown)["/code"] == "unknown_file"
    assert taken.status_code == 201
    assert taken.json()["name"] == "train"
    assert taken.json()["project"] == "vision"


def test_resuming_needs_a_committed_checkpoint_of_the_project(app_client: AppClient) -> None:
    job = app_client.submit(job_document())
    with app_client.database.write() as session:
        attempt = start_job(session, job["id"], add_node(session))
        good = add_checkpoint(session, attempt)
        half = add_checkpoint(session, attempt, state=CheckpointState.UPLOADING, step=20)

    taken = app_client.post("/v1/jobs", json=job_document(resume_from=good))
    refused = app_client.post("/v1/jobs", json=job_document(resume_from=half))

    assert taken.json()["parent_job_id"] == job["id"]
    assert _problems(refused) == {"/resume_from": "unknown_checkpoint"}


def test_an_admin_may_submit_into_any_project_and_others_only_into_their_own(
    app_client: AppClient,
) -> None:
    app_client.make_project("vision")
    member = app_client.with_key(app_client.make_key())

    by_admin = app_client.post("/v1/jobs", json=job_document(project="vision"))
    by_member = member.post("/v1/jobs", json=job_document(project="vision"))
    unknown = member.post("/v1/jobs", json=job_document(project="nowhere"))

    assert by_admin.json()["project"] == "vision"
    assert _problems(by_member) == _problems(unknown) == {"/project": "unknown_project"}
    assert by_member.json()["errors"] == unknown.json()["errors"]


def test_a_job_for_later_says_so_from_the_start(app_client: AppClient) -> None:
    later = app_client.submit(job_document(begin_at="2099-01-01T00:00:00+02:00"))
    past = app_client.submit(job_document(begin_at="2001-01-01T00:00:00Z"))
    held = app_client.submit(job_document(hold=True))

    assert later["reason"] == "BeginTimeNotReached"
    assert "2098-12-31T22:00:00Z" in later["message"]
    assert past["reason"] == "Submitted"
    assert (held["reason"], held["held"]) == ("HeldByUser", True)


def test_the_same_request_twice_makes_one_job(app_client: AppClient) -> None:
    headers = {"idempotency-key": "once"}

    first = app_client.post("/v1/jobs", json=job_document(), headers=headers)
    again = app_client.post("/v1/jobs", json=job_document(), headers=headers)
    other = app_client.post("/v1/jobs", json=job_document(workers=1), headers=headers)

    assert again.status_code == first.status_code == 201
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_mismatch"
    assert _count_jobs(app_client) == 1


def test_the_same_document_in_other_bytes_is_the_same_request(app_client: AppClient) -> None:
    headers = {"idempotency-key": "once", "content-type": "application/json"}
    document = job_document()
    backwards = dict(reversed(document.items()))

    first = app_client.post("/v1/jobs", content=json.dumps(document), headers=headers)
    again = app_client.post("/v1/jobs", content=json.dumps(backwards, indent=3), headers=headers)

    assert again.status_code == 201
    assert again.json()["id"] == first.json()["id"]


def test_a_refused_request_leaves_its_idempotency_key_free(app_client: AppClient) -> None:
    headers = {"idempotency-key": "again"}

    assert app_client.post("/v1/jobs", json={}, headers=headers).status_code == 422
    assert app_client.post("/v1/jobs", json=job_document(), headers=headers).status_code == 201


def test_an_idempotency_key_is_the_projects_own(app_client: AppClient) -> None:
    app_client.make_project("vision")
    other = app_client.with_key(app_client.make_key(project="vision"))
    headers = {"idempotency-key": "mine"}

    first = app_client.post("/v1/jobs", json=job_document(), headers=headers)
    theirs = other.post("/v1/jobs", json=job_document(), headers=headers)

    assert first.json()["id"] != theirs.json()["id"]


def test_64_equal_submits_at_once_make_one_job(app_client: AppClient) -> None:
    answers = []
    start = threading.Barrier(64)

    def submit() -> None:
        start.wait()
        answer = app_client.post(
            "/v1/jobs", json=job_document(), headers={"idempotency-key": "storm"}
        )
        answers.append((answer.status_code, answer.json()["id"]))

    threads = [threading.Thread(target=submit) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 64
    assert len(set(answers)) == 1
    assert _count_jobs(app_client) == 1


def test_good_and_bad_submits_at_once_do_not_mix(app_client: AppClient) -> None:
    statuses: list[tuple[int, int]] = []
    start = threading.Barrier(16)

    def submit(number: int) -> None:
        document = job_document() if number % 2 else job_document(project="nowhere")
        start.wait()
        statuses.append((number % 2, app_client.post("/v1/jobs", json=document).status_code))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [(0, 422)] * 8 + [(1, 201)] * 8
    assert _count_jobs(app_client) == 8
    with app_client.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 8
        assert session.scalar(select(func.count()).select_from(Checkpoint)) == 0


def test_a_viewer_may_not_submit(app_client: AppClient) -> None:
    viewer = app_client.with_key(app_client.make_key("viewer"))

    answer = viewer.post("/v1/jobs", json=job_document())

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_the_stored_spec_is_the_document_with_all_defaults(app_client: AppClient) -> None:
    job = app_client.submit(job_document())

    again = app_client.post("/v1/jobs", json=job["spec"])

    assert again.status_code == 201, again.text
    assert again.json()["spec"] == job["spec"]
    assert json.dumps(job["spec"], allow_nan=False)
