"""The app on a migrated database, with nodes and supervisors that speak the worker protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.auth.tokens import hash_secret, new_api_key
from api.config import ApiConfig, Timers
from api.storage import LocalStorage
from models import ApiKey, Database, Pool, Project, Queue, Role
from scheduler.core.spec import JobSpec
from tests.worlds import World

RECIPES = Path(__file__).resolve().parents[3] / "sdk" / "src" / "trainmaster" / "recipes"
CAPACITY = {"cpu_milli": 8000, "memory_mib": 8192, "gpus": []}
ONE = JobSpec(recipe="image-classifier", workers=1)
TWO = JobSpec(recipe="image-classifier", workers=2)


class Desk:
    """The service, seen over HTTP, with the scheduler run by hand."""

    def __init__(self, database: Database, storage_dir: Path, **timers: float) -> None:
        self.database = database
        self.config = ApiConfig(
            storage_dir=storage_dir,
            recipes_dir=RECIPES,
            signing_key=b"k" * 32,
            timers=Timers(**timers),
            allowed_hosts=("testserver", "127.0.0.1"),
        )
        self.app: FastAPI = create_app(self.config, database)
        self.storage = LocalStorage(storage_dir)
        self.app.state.storage = self.storage
        self.http = TestClient(self.app, raise_server_exceptions=False)
        self.world = World(database, now=datetime.now(UTC))
        with database.write() as session:
            session.add(Pool(name="default", created_at=self.world.now))
            session.flush()
            session.add(Queue(name="default", pool="default", created_at=self.world.now))
        self.admin = self.add_project("default", Role.ADMIN)

    def add_project(self, name: str, role: Role = Role.MEMBER) -> dict[str, str]:
        """Add a project with one key; return the headers of that key."""
        now = datetime.now(UTC)
        key = new_api_key()
        with self.database.write() as session:
            project = Project(name=name, created_at=now)
            session.add(project)
            session.flush()
            session.add(
                ApiKey(
                    project_id=project.id,
                    name=name,
                    role=role,
                    secret_sha256=hash_secret(key),
                    last4=key[-4:],
                    created_at=now,
                )
            )
        return bearer(key)

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON that an admin gets."""
        answer = self.http.get(path, params=query, headers=self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def join(self, name: str = "n0") -> NodeDesk:
        """Let a machine join and be heard."""
        answer = self.http.post("/v1/nodes", json={"name": name}, headers=self.admin)
        joined = answer.json()
        node = NodeDesk(self, joined["id"], bearer(joined["credential"]))
        node.beat()
        return node

    def submit(self, spec: JobSpec = TWO) -> str:
        """Store a job."""
        self.world.now = datetime.now(UTC)
        cpus = spec.resources.cpus
        return self.world.add_job(
            spec, request_cpu_milli=None if cpus is None else int(cpus * 1000)
        )

    def schedule(self) -> None:
        """Run one pass of the scheduler."""
        self.world.now = datetime.now(UTC)
        self.world.scheduler().run_once()

    def launch(self, spec: JobSpec = TWO, node: NodeDesk | None = None) -> Supervisor:
        """Submit a job, and start it on `node` (a new one by default)."""
        node = node or self.join()
        job_id = self.submit(spec)
        self.schedule()
        return node.take(job_id)


@dataclass
class NodeDesk:
    """The daemon of one machine."""

    desk: Desk
    node_id: str
    headers: dict[str, str]
    supervisors: list[dict[str, Any]] = field(default_factory=list)

    def beat(self, wait: float = 0, **changes: Any) -> dict[str, Any]:
        """Send a heartbeat and return what is wanted."""
        said = {
            "boot_id": "boot-1",
            "version": "0.1.0",
            "address": "127.0.0.1",
            "capacity": CAPACITY,
            "supervisors": self.supervisors,
            "ended": [],
            "health": {},
            **changes,
        }
        path = f"/v1/nodes/{self.node_id}/heartbeat"
        answer = self.desk.http.post(path, params={"wait": wait}, json=said, headers=self.headers)
        assert answer.status_code == 200, answer.text
        wanted: dict[str, Any] = answer.json()
        return wanted

    def take(self, job_id: str) -> Supervisor:
        """Start supervisors for all that is assigned; return the one of `job_id`."""
        found = None
        for each in self.beat()["assignments"]:
            self.supervisors.append({"attempt_id": each["attempt_id"], "epoch": each["epoch"]})
            supervisor = Supervisor(self.desk, each["attempt_id"], each["token"])
            if supervisor.assignment()["job_id"] == job_id:
                found = supervisor
        assert found is not None, "the job is not assigned to this node"
        return found


@dataclass
class Supervisor:
    """The supervisor of one node's part of an attempt."""

    desk: Desk
    attempt_id: str
    token: str

    @property
    def job_id(self) -> str:
        """The job of the attempt."""
        return str(self.assignment()["job_id"]) if not hasattr(self, "_job_id") else self._job_id

    def call(self, method: str, route: str, **options: Any) -> Any:
        """Send a request for this attempt and return the answer."""
        path = route if route.startswith("/") else f"/v1/attempts/{self.attempt_id}/{route}"
        headers = {**bearer(self.token), **options.pop("headers", {})}
        return self.desk.http.request(method, path, headers=headers, **options)

    def assignment(self) -> dict[str, Any]:
        """Fetch the assignment."""
        document: dict[str, Any] = ok(self.call("GET", "assignment"))
        self._job_id = str(document["job_id"])
        return document

    def lease(self, phase: str = "running", **changes: Any) -> dict[str, Any]:
        """Renew the lease and return the answer."""
        said = {
            "phase": phase,
            "message": None,
            "progress": None,
            "ranks": [{"rank": 0, "pid": 1, "state": "running"}],
            "rendezvous": None,
            **changes,
        }
        renewed: dict[str, Any] = ok(self.call("POST", "lease", json=said))
        return renewed

    def append(self, data: bytes, offset: int, rank: int = 0, stream: str = "stdout") -> Any:
        """Offer log bytes."""
        return self.call("PUT", f"logs/{rank}/{stream}", params={"offset": offset}, content=data)

    def measure(
        self, sequence: int, columns: Mapping[str, Any], *, rank: int = 0, count: int | None = None
    ) -> Any:
        """Offer a batch of points; `columns` maps a key to pairs of step and value."""
        lines = max((len(pairs) for pairs in columns.values()), default=0)
        batch = {
            "stream": str(rank),
            "sequence": sequence,
            "count": lines if count is None else count,
            "columns": {
                key: {
                    "steps": [step for step, _ in pairs],
                    "times": [1000.0 + step for step, _ in pairs],
                    "values": [value for _, value in pairs],
                }
                for key, pairs in columns.items()
            },
        }
        return self.call("POST", "metrics", json=batch)

    def begin(
        self, step: int, files: Mapping[str, bytes], metrics: Mapping[str, Any] | None = None
    ) -> Any:
        """Announce a checkpoint."""
        manifest = [
            {"path": path, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        ]
        body = {
            "name": f"ready-{step:012d}-{hashlib.sha256(str(files).encode()).hexdigest()[:8]}",
            "step": step,
            "metrics": dict(metrics or {}),
            "files": manifest,
        }
        return self.call("POST", "checkpoints", json=body)

    def save(
        self,
        step: int,
        files: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Upload and commit a checkpoint; return it."""
        files = {"model.bin": b"weights of %d" % step} if files is None else files
        begun = ok(self.begin(step, files, metrics))
        for upload in begun["uploads"]:
            assert self.call("PUT", upload["url"], content=files[upload["path"]]).status_code == 204
        saved: dict[str, Any] = ok(self.commit(begun["checkpoint_id"]))
        return saved

    def commit(self, checkpoint_id: str) -> Any:
        """Commit a checkpoint."""
        return self.call("POST", f"checkpoints/{checkpoint_id}/commit")

    def exit(self, outcome: str = "succeeded", reason: str | None = None, **changes: Any) -> Any:
        """Report the end."""
        kind = {"succeeded": "ok", "failed": "user", "stopped": "stopped", "lost": "infra"}[outcome]
        rank = {"rank": 0, "code": 0, "signal": None, "class": kind, "last_step": None}
        report = {"outcome": outcome, "reason": reason, "message": None, "ranks": [rank], **changes}
        return self.call("POST", "exit", json=report)


def bearer(secret: str) -> dict[str, str]:
    """Return the header that carries a credential."""
    return {"authorization": f"Bearer {secret}"}


def ok(answer: Any) -> Any:
    """Return the JSON of a good answer."""
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


def problem(answer: Any, status: int) -> str:
    """Return the code of a problem document, after a look at the document itself."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    return str(document["code"])


def texts(page: Mapping[str, Any]) -> list[str]:
    """Return the texts of a page of log lines."""
    lines: Sequence[Mapping[str, Any]] = page["data"]
    return [line["text"] for line in lines]
