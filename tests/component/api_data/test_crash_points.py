"""The service is killed with SIGKILL between two steps; then the same request comes again.

A real process is killed at a named place, so nothing cleans up after it. What has to hold: nothing
is lost, nothing is there twice, and what was half done is finished or swept away.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.housekeeping import run_once
from scheduler.core.spec import CheckpointPolicy, JobSpec
from tests.component.api_data.desk import TWO, Desk, Supervisor, bearer, ok, texts

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).parent / "scripts" / "dying_request.py"

AFTER_COMMIT = "models.doorbell:Doorbell.ring:before"
"""Bells are rung right after the commit."""


@pytest.fixture(scope="session")
def executioner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that forks services to be killed; about 1 s once."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


class DyingDesk:
    """Sends requests to services that are killed while they answer."""

    def __init__(self, process: subprocess.Popen[bytes], database_url: str, folder: Path) -> None:
        self._process, self._database_url, self._folder = process, database_url, folder

    def send(
        self, kill_at: str, method: str, path: str, secret: str, body: bytes = b"", **headers: str
    ) -> None:
        """Send a request whose service dies at `kill_at`; fails if it survives."""
        said = {
            "database": self._database_url,
            "folder": str(self._folder),
            "kill_at": kill_at,
            "method": method,
            "path": path,
            "headers": {**bearer(secret), **{k.replace("_", "-"): v for k, v in headers.items()}},
            "body": base64.b64encode(body).decode(),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        self._process.stdin.flush()
        assert json.loads(self._process.stdout.readline()) == "SIGKILL"

    def send_json(self, kill_at: str, path: str, secret: str, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send(kill_at, "POST", path, secret, body, content_type="application/json")


@pytest.fixture
def dying(
    desk: Desk, executioner: subprocess.Popen[bytes], database_url: str, tmp_path: Path
) -> DyingDesk:
    """Services on the data of the test's desk, that die."""
    return DyingDesk(executioner, database_url, tmp_path)


def sweep(desk: Desk, **later: float) -> Any:
    return run_once(desk.database, desk.storage, datetime.now(UTC) + timedelta(**later))


def num_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param("api.metrics.store:_store_columns:after", id="before the commit"),
        pytest.param(AFTER_COMMIT, id="between commit and answer"),
    ],
)
def test_metric_points_are_there_once(desk: Desk, dying: DyingDesk, kill_at: str) -> None:
    supervisor = desk.launch()
    batch = {
        "stream": "0",
        "sequence": 0,
        "count": 2,
        "columns": {"loss": {"steps": [1, 2], "times": [1, 2], "values": [0.5, 0.25]}},
    }

    dying.send_json(
        kill_at, f"/v1/attempts/{supervisor.attempt_id}/metrics", supervisor.token, batch
    )
    again = supervisor.call("POST", "metrics", json=batch)

    assert ok(again) == {"high_water": 2}
    series = desk.get(f"/v1/jobs/{supervisor.job_id}/metrics", key="loss")
    assert series["values"] == [0.5, 0.25]


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param("api.logs.worker_routes:append_log:after", id="before the commit"),
        pytest.param(AFTER_COMMIT, id="between append and answer"),
    ],
)
def test_log_bytes_are_there_once(desk: Desk, dying: DyingDesk, kill_at: str) -> None:
    supervisor = desk.launch()
    path = f"/v1/attempts/{supervisor.attempt_id}/logs/0/stdout?offset=0"

    dying.send(kill_at, "PUT", path, supervisor.token, b"hello\n")

    assert ok(supervisor.append(b"hello\n", 0)) == {"length": 6}
    assert texts(desk.get(f"/v1/jobs/{supervisor.job_id}/logs")) == ["hello"]


@pytest.mark.parametrize(
    "kill_at", ["api.storage:Staged.sync:before", "api.storage:Staged.sync:after"]
)
def test_a_checkpoint_file_is_never_there_in_part(
    desk: Desk, dying: DyingDesk, kill_at: str
) -> None:
    supervisor = desk.launch()
    begun = ok(supervisor.begin(1, {"m": b"weights"}))
    (upload,) = begun["uploads"]

    dying.send(kill_at, "PUT", upload["url"], supervisor.token, b"weights")

    assert num_files(desk.storage.root / "checkpoints") == 0
    assert desk.get(f"/v1/jobs/{supervisor.job_id}/checkpoints")["data"] == []
    supervisor.save(1, {"m": b"weights"})
    assert len(desk.get(f"/v1/jobs/{supervisor.job_id}/checkpoints")["data"]) == 1
    assert num_files(desk.storage.root / "staging") == 1
    assert sweep(desk, hours=2).staged == 1


def test_an_uploaded_checkpoint_that_is_not_committed_is_not_listed(
    desk: Desk, dying: DyingDesk
) -> None:
    supervisor = desk.launch()
    begun = ok(supervisor.begin(1, {"m": b"weights"}))
    supervisor.call("PUT", begun["uploads"][0]["url"], content=b"weights")
    path = f"/v1/attempts/{supervisor.attempt_id}/checkpoints/{begun['checkpoint_id']}/commit"

    dying.send("api.storage:LocalStorage.sync_checkpoint:after", "POST", path, supervisor.token)

    assert desk.get(f"/v1/jobs/{supervisor.job_id}/checkpoints")["data"] == []
    again = ok(supervisor.begin(1, {"m": b"weights"}))
    assert (again["checkpoint_id"], again["uploads"]) == (begun["checkpoint_id"], [])
    ok(supervisor.commit(begun["checkpoint_id"]))
    assert len(desk.get(f"/v1/jobs/{supervisor.job_id}/checkpoints")["data"]) == 1


def test_a_committed_checkpoint_is_committed_once_whoever_heard_of_it(
    desk: Desk, dying: DyingDesk
) -> None:
    supervisor = desk.launch()
    begun = ok(supervisor.begin(1, {"m": b"weights"}))
    supervisor.call("PUT", begun["uploads"][0]["url"], content=b"weights")
    path = f"/v1/attempts/{supervisor.attempt_id}/checkpoints/{begun['checkpoint_id']}/commit"

    dying.send(AFTER_COMMIT, "POST", path, supervisor.token)

    assert ok(supervisor.begin(1, {"m": b"weights"}))["state"] == "committed"
    assert ok(supervisor.commit(begun["checkpoint_id"]))["state"] == "committed"
    assert desk.world.history(supervisor.job_id).count("checkpoint.committed") == 1


KEEP_ONE = JobSpec(
    recipe="image-classifier", workers=1, checkpoint=CheckpointPolicy(keep_last=1, every_steps=1)
)


def _replace_checkpoint(desk: Desk, dying: DyingDesk, kill_at: str) -> tuple[Supervisor, str]:
    """Commit a second checkpoint, which makes the first expire; the service dies at `kill_at`."""
    supervisor = desk.launch(KEEP_ONE)
    old = supervisor.save(1)
    files = {"m": b"newer"}
    begun = ok(supervisor.begin(2, files))
    supervisor.call("PUT", begun["uploads"][0]["url"], content=b"newer")
    path = f"/v1/attempts/{supervisor.attempt_id}/checkpoints/{begun['checkpoint_id']}/commit"
    dying.send(kill_at, "POST", path, supervisor.token)
    return supervisor, str(old["id"])


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param("api.checkpoints.receive:finish_deletions:before", id="mark and delete"),
        pytest.param("api.storage:LocalStorage.delete:after", id="bytes and row"),
    ],
)
def test_a_deletion_that_was_cut_off_is_finished_later(
    desk: Desk, dying: DyingDesk, kill_at: str
) -> None:
    supervisor, old_id = _replace_checkpoint(desk, dying, kill_at)

    listed = desk.get(f"/v1/jobs/{supervisor.job_id}/checkpoints")["data"]
    assert [each["step"] for each in listed] == [2]
    assert desk.http.get(f"/v1/checkpoints/{old_id}", headers=desk.admin).status_code == 404
    assert sweep(desk).checkpoints == 1
    assert sweep(desk).checkpoints == 0
    assert num_files(desk.storage.root / "checkpoints") == 1
    content = desk.http.get(listed[0]["files"][0]["url"], headers=desk.admin).content
    assert content == b"newer"


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param("api.attempts.worker_routes:report_exit:after", id="before the commit"),
        pytest.param(AFTER_COMMIT, id="between terminal commit and answer"),
    ],
)
def test_a_job_ends_once(desk: Desk, dying: DyingDesk, kill_at: str) -> None:
    supervisor = desk.launch(TWO)
    supervisor.lease()
    rank = {"rank": 0, "code": 0, "signal": None, "class": "ok", "last_step": 5}
    report = {"outcome": "succeeded", "reason": None, "message": None, "ranks": [rank]}
    path = f"/v1/attempts/{supervisor.attempt_id}/exit"

    dying.send_json(kill_at, path, supervisor.token, report)
    answers = [ok(supervisor.call("POST", "exit", json=report)) for _ in range(2)]

    assert answers == [{"accepted": True, "job_state": "succeeded"}] * 2
    history = desk.world.history(supervisor.job_id)
    assert [each for each in history if each in {"job.succeeded", "job.failed"}] == [
        "job.succeeded"
    ]


@pytest.mark.parametrize(
    ("kill_at", "orphans"),
    [
        pytest.param("api.files.routes:write_once:before", 1, id="bytes and row"),
        pytest.param("api.files.routes:write_once:after", 0, id="row and answer"),
    ],
)
def test_an_upload_makes_one_file_and_leaves_nothing_behind(
    desk: Desk, dying: DyingDesk, kill_at: str, orphans: int
) -> None:
    path = "/v1/files?filename=bundle.zip"
    secret = desk.admin["authorization"].removeprefix("Bearer ")

    dying.send(kill_at, "POST", path, secret, b"zip", idempotency_key="upload-1")
    headers = {**desk.admin, "idempotency-key": "upload-1"}
    made = ok(desk.http.post(path, content=b"zip", headers=headers))

    (listed,) = desk.get("/v1/files")["data"]
    assert listed["id"] == made["id"]
    assert desk.http.get(listed["content_url"], headers=desk.admin).content == b"zip"
    assert sweep(desk, hours=2).orphans == orphans
    assert num_files(desk.storage.root / "files") == 1
