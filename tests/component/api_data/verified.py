"""A verification, played step by step: its jobs, their supervisors, and the loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from api.jobs.desk import open_desk
from api.verification.loop import Verifier
from models import Job, Verification
from tests.component.api_data.desk import Desk, NodeDesk, Supervisor, ok

SPEC = {"recipe": "image-classifier", "workers": 1, "config": {"epochs": 3}}
META: dict[str, Any] = {"format": 1, "step": 20, "world_size": 1, "models": ["model"], "facts": {}}
LAST_STEP = 20


def meta(**changes: Any) -> bytes:
    """Return the meta.json of a checkpoint."""
    return json.dumps({**META, "metrics": {}, "versions": {}, **changes}).encode()


FILES = {"model.safetensors": b"weights", "state.pt": b"state", "meta.json": meta()}


class Play:
    """A verification, step by step."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.node = desk, desk.join()
        self.verifier = self.restarted()

    def restarted(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Verifier:
        """Return the loop as it is after a restart of the service: it remembers nothing."""
        desk = open_desk(self.desk.config, self.desk.database)
        return Verifier(desk, self.desk.storage, clock, poll_s=1)

    def ask(self, spec: dict[str, Any] = SPEC, **query: Any) -> dict[str, Any]:
        """Ask for a verification."""
        answer = self.desk.http.post(
            "/v1/jobs/verify-resume", json=spec, params=query, headers=self.desk.admin
        )
        asked: dict[str, Any] = ok(answer)
        return asked

    def read(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is now."""
        found: dict[str, Any] = self.desk.get(f"/v1/verifications/{asked['id']}")
        return found

    def look(self) -> None:
        """Let the loop look twice, as after a lost message: the second look changes nothing."""
        self.verifier.run_once()
        before = self.rows()
        self.restarted().run_once()
        assert self.rows() == before

    def rows(self) -> tuple[list[str], list[int]]:
        """Return the jobs, and the versions of the verifications."""
        with self.desk.database.read() as session:
            jobs = [job.id for job in session.query(Job).order_by(Job.id)]
            rows = session.query(Verification).order_by(Verification.id)
            return jobs, [row.version for row in rows]

    def take(self, job_id: str) -> Supervisor:
        """Start a job's next attempt."""
        self.desk.schedule()
        return take(self.node, job_id)

    def run_reference(self, asked: dict[str, Any], files: dict[str, bytes], **metrics: Any) -> None:
        """Let the job that nobody disturbs succeed."""
        supervisor = self.take(asked["reference_job_id"])
        assert supervisor.assignment()["interruption"] is None
        supervisor.save(LAST_STEP, files, metrics)
        ok(supervisor.exit("succeeded"))
        self.look()

    def run_interrupted(
        self, asked: dict[str, Any], files: dict[str, bytes], *, first_step: int | None = None,
        **metrics: Any,
    ) -> None:  # fmt: skip
        """Let the other job be killed, resume and succeed."""
        found = self.read(asked)
        job_id, plan = found["interrupted_job_id"], found["interruption"]
        supervisor = self.take(job_id)
        assert supervisor.assignment()["interruption"] == plan
        supervisor.save(plan["save_at_step"], {"model.safetensors": b"half"})
        ok(killed(supervisor, plan["kill_at_step"]))
        again = self.take(job_id)
        assert again.assignment()["interruption"] is None
        assert again.assignment()["resume"]["step"] == plan["save_at_step"]
        if first_step is not None:
            ok(again.measure(0, {"loss": [(first_step, 1.0)]}))
        again.save(LAST_STEP, files, metrics)
        ok(again.exit("succeeded"))
        self.look()


def take(node: NodeDesk, job_id: str) -> Supervisor:
    """Return the supervisor of the newest attempt of a job."""
    node.supervisors.clear()
    return node.take(job_id)


def killed(supervisor: Supervisor, step: int) -> Any:
    """Report that a rank was killed with SIGKILL."""
    rank = {"rank": 0, "code": None, "signal": 9, "class": "infra", "last_step": step}
    message = "rank 0 was killed by SIGKILL, not sent by Trainmaster"
    return supervisor.exit("failed", "RankKilled", ranks=[rank], message=message)
