"""kill -9 at every point where it hurts: nothing is lost, nothing happens twice.

The eighteen points are those of a job's life that need neither a broker nor an object store. The
truth is the trainer's own ledger (scripts/ledger.py), not what the service says: every job that was
answered with 201 exists and ends as it should, no two attempts were at work at the same time, work
goes on from the newest checkpoint, and every line and point that the ledger knows arrived once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.services import Ledger, Service, make_bundle, read_json, wait_for
from trainmaster import Client, NotFoundError
from trainmaster.documents import Job

pytestmark = pytest.mark.torch

STEPS = 60


@dataclass
class Scene:
    """A service that may be killed, a trainer's ledger, and a client that logs what it was told."""

    service: Service
    ledger: Ledger
    bundle: Path
    answered: list[str] = field(default_factory=list)

    def submit(self, client: Client, **changes: Any) -> Job:
        """Submit the trainer that keeps its own books; remember what was answered."""
        config = {
            "ledger": str(self.ledger.path),
            "steps": STEPS,
            "step_seconds": 0.02,
            "checkpoint_every": 10,
            **changes.pop("config", {}),
        }
        spec: dict[str, Any] = {
            "code": self.bundle,
            "entrypoint": "ledger.py",
            "config": config,
            "retry": {"backoff_seconds": 0},
            "limits": {"grace_seconds": 1},
        }
        job = client.jobs.submit({**spec, **changes})
        self.answered.append(job.id)
        return job

    def submit_through_the_kill(self, **changes: Any) -> Job:
        """Submit while the service dies under the request; start it again meanwhile."""
        with self.service.client() as client:
            found: list[Job] = []
            thread = threading.Thread(target=lambda: found.append(self.submit(client, **changes)))
            thread.start()
            self.revive()
            thread.join(60)
        assert found, "the client gave up"
        return found[0]

    def revive(self) -> None:
        """Wait until the service has killed itself, and start it again as it should be."""
        wait_for("the service to be killed", self.service.has_ended)
        self.service.start()

    def wait_steps(self, count: int) -> None:
        """Wait until the trainer has done so many steps."""
        wait_for(f"{count} steps", lambda: len(self.ledger.steps()) >= count)

    def supervisor_pid(self, attempt: int = 1) -> int:
        """Return the process of the supervisor of one attempt, as soon as there is one."""
        record = wait_for("a supervisor", lambda: self._find_supervisor(attempt))
        return int(record["pid"])

    def _find_supervisor(self, attempt: int) -> dict[str, Any] | None:
        for run in self.service.runs():
            told = read_json(run / "run.json") or {"attempt_number": 1}
            if told["attempt_number"] == attempt:
                return read_json(run / "supervisor.json")
        return None

    def finish(self, job: Job, *, state: str = "succeeded") -> Job:
        """Wait for the end and hold everything against the ledger."""
        with self.service.client() as client:
            done = client.jobs.wait(job, timeout_seconds=90, raise_on_failure=False)
            assert done.state == state, (done.reason, done.message)
            self._check(client, done)
        wait_for("an empty node", lambda: not self.service.runs())
        return done

    def _check(self, client: Client, job: Job) -> None:
        assert {one.id for one in client.jobs.list()} == set(self.answered)
        assert self.ledger.overlaps() == []
        starts = self.ledger.entries("start")
        saved = [0]
        for start in starts:
            assert start["step"] in saved, "it resumed from what was never saved"
            saved += [
                entry["step"]
                for entry in self.ledger.entries("checkpoint")
                if entry["attempt"] == start["attempt"]
            ]
        self._check_delivery(client, job)
        events = [event.seq for event in client.jobs.events.list(job)]
        assert sorted(events) == list(range(1, len(events) + 1))

    def _check_delivery(self, client: Client, job: Job) -> None:
        """Every line and point of every attempt arrived once, in order."""
        for attempt in client.jobs.attempts(job):
            done = [
                e["step"] for e in self.ledger.entries("step") if e["attempt"] == attempt.number
            ]
            text = client.jobs.logs.text(job, rank=0, stream="stdout", attempt=str(attempt.number))
            printed = [int(line.rpartition(" ")[2]) for line in text.splitlines()]
            # A rank may be killed after it printed and before it wrote into its ledger.
            assert printed[: len(done)] == done
            assert len(printed) <= len(done) + 1
            steps, values = _points(client, job, attempt.number)
            assert steps[: len(done)] == done
            assert len(steps) <= len(done) + 1
            assert values == [1.0 / step for step in steps]


def _points(client: Client, job: Job, attempt: int | None) -> tuple[list[int], list[float]]:
    try:
        series = client.jobs.metrics.series(job, "loss", attempt=attempt)
    except NotFoundError:
        return [], []  # it was killed before its first step
    return series.steps, series.values


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose service is not started yet."""
    service = Service(tmp_path / "data")
    bundle = make_bundle(tmp_path / "bundle", "ledger.py")
    yield Scene(service=service, ledger=Ledger(tmp_path / "ledger.jsonl"), bundle=bundle)
    service.stop()


def _service_point(scene: Scene, place: str, **changes: Any) -> Job:
    """Run one job on a service that dies at `place` and is started again."""
    scene.service.start(kill_at=place)
    with scene.service.client() as client:
        job = scene.submit(client, **changes)
    scene.revive()
    return scene.finish(job)


def test_01_before_insert_a_kill_loses_no_job(scene: Scene) -> None:
    scene.service.start(kill_at="api.jobs.submit:add_job:before")

    job = scene.submit_through_the_kill()

    scene.finish(job)


def test_02_before_commit_a_kill_makes_no_second_job(scene: Scene) -> None:
    scene.service.start(kill_at="api.jobs.submit:add_job:after")

    job = scene.submit_through_the_kill()

    scene.finish(job)


def test_03_commit_to_reply_a_kill_makes_no_second_job(scene: Scene) -> None:
    scene.service.start(kill_at="api.jobs.routes:submit_job:after")

    job = scene.submit_through_the_kill()

    scene.finish(job)


def test_04_select_to_claim_a_kill_only_delays_the_start(scene: Scene) -> None:
    _service_point(scene, "scheduler.shell.loop:apply_decisions:before")


def test_05_claim_to_spawn_the_next_daemon_starts_the_attempt(scene: Scene) -> None:
    scene.service.start(kill_at="node@workers.node.runs:Runs._start:before")

    with scene.service.client() as client:
        job = scene.submit(client)

    scene.finish(job)


def test_06_spawn_to_running_the_service_may_die(scene: Scene) -> None:
    _service_point(scene, "api.attempts.worker_routes:renew_lease:before")


def test_06_spawn_to_running_the_supervisor_may_die(scene: Scene) -> None:
    scene.service.start()
    with scene.service.client() as client:
        job = scene.submit(client)

    os.kill(scene.supervisor_pid(), signal.SIGKILL)

    scene.finish(job)


@pytest.mark.parametrize("victim", ["service", "daemon", "supervisor", "rank"])
def test_07_mid_run_anybody_may_die(scene: Scene, victim: str) -> None:
    scene.service.start()
    with scene.service.client() as client:
        job = scene.submit(client)
    scene.wait_steps(25)

    match victim:
        case "service":
            scene.service.kill()
            scene.service.start()
        case "daemon":
            os.kill(scene.service.daemon_pid(), signal.SIGKILL)
        case "supervisor":
            os.kill(scene.supervisor_pid(), signal.SIGKILL)
        case "rank":
            os.kill(scene.ledger.entries()[0]["pid"], signal.SIGKILL)

    done = scene.finish(job)
    starts = [entry["step"] for entry in scene.ledger.entries("start")]
    if victim in {"service", "daemon"}:
        assert starts == [0], "their death interrupts no job"
    else:
        assert starts[0] == 0
        assert starts[1] >= 10, "work goes on from the newest checkpoint"
        assert done.attempt is not None
        assert done.attempt.number == 2


def test_08_metric_commit_to_ack_no_point_is_doubled(scene: Scene) -> None:
    _service_point(scene, "api.metrics.worker_routes:write_as:after")


def test_09_log_append_to_ack_no_byte_is_doubled(scene: Scene) -> None:
    _service_point(scene, "api.logs.worker_routes:write_as:after")


def test_10_mid_upload_a_checkpoint_is_whole_or_not_there(scene: Scene) -> None:
    big = {"checkpoint_bytes": 5_000_000}
    _service_point(scene, "api.storage:Staged.write:after#3", config=big)


def test_11_upload_to_commit_the_checkpoint_is_committed_later(scene: Scene) -> None:
    _service_point(scene, "api.checkpoints.worker_routes:commit_checkpoint:before")


def test_12_commit_to_ack_the_checkpoint_is_listed_once(scene: Scene) -> None:
    _service_point(scene, "api.checkpoints.worker_routes:commit_checkpoint:after")


def test_13_delete_mark_to_delete_is_finished_later(scene: Scene) -> None:
    job = _service_point(scene, "api.storage:LocalStorage.delete:before")

    with scene.service.client() as client:
        kept = sorted(one.step or 0 for one in client.jobs.checkpoints(job))
        assert kept == [STEPS - 10, STEPS]
    storage = scene.service.folder / "storage"
    wait_for(
        "the marked bytes to go",
        lambda: len({path.parent for path in storage.rglob("*") if path.is_file()}) <= 3,
        within_s=60,
    )


def test_14_exit_to_report_what_has_ended_is_not_run_again(scene: Scene) -> None:
    scene.service.start(kill_at="api.attempts.worker_routes:report_exit:before")
    with scene.service.client() as client:
        job = scene.submit(client)
    pid = scene.supervisor_pid()
    wait_for("the service to be killed", scene.service.has_ended)

    os.kill(pid, signal.SIGKILL)
    scene.service.start()

    scene.finish(job)
    assert len(scene.ledger.entries("start")) == 1, "what had ended was not run again"


def test_15_terminal_commit_to_ack_the_end_stays_the_end(scene: Scene) -> None:
    _service_point(scene, "api.attempts.worker_routes:write:after")

    assert len(scene.ledger.entries("start")) == 1


def test_16_sigterm_to_sigkill_the_rank_dies_all_the_same(scene: Scene) -> None:
    scene.service.start()
    with scene.service.client() as client:
        job = scene.submit(client, config={"ignore_sigterm": True, "steps": 5000})
        scene.wait_steps(3)
        pid = scene.supervisor_pid()
        client.jobs.cancel(job)
        wait_for("the stop", lambda: client.jobs.get(job).state in {"stopping", "cancelled"})

    os.kill(pid, signal.SIGKILL)

    scene.finish(job, state="cancelled")
    rank_pid = scene.ledger.entries()[0]["pid"]
    wait_for("the rank to be gone", lambda: not Path(f"/proc/{rank_pid}").exists())


def test_17_clean_up_is_finished_by_the_next_daemon(scene: Scene) -> None:
    scene.service.start(kill_at="node@workers.node.runs:Runs._close:before")

    with scene.service.client() as client:
        job = scene.submit(client)

    scene.finish(job)
    assert len(scene.ledger.entries("start")) == 1


def test_18_restore_goes_on_when_the_service_is_back(scene: Scene) -> None:
    scene.service.start(kill_at="api.checkpoints.worker_routes:send_object:before")
    with scene.service.client() as client:
        job = scene.submit(client)
    scene.wait_steps(25)
    os.kill(scene.ledger.entries()[0]["pid"], signal.SIGKILL)

    scene.revive()

    scene.finish(job)
    assert scene.ledger.entries("start")[-1]["step"] >= 10


def test_18_restore_is_begun_again_by_the_next_supervisor(scene: Scene) -> None:
    scene.service.start()
    with scene.service.client() as client:
        job = scene.submit(client, config={"checkpoint_bytes": 3_000_000})
        scene.wait_steps(25)
        os.kill(scene.ledger.entries()[0]["pid"], signal.SIGKILL)

        os.kill(scene.supervisor_pid(attempt=2), signal.SIGKILL)

    scene.finish(job)
