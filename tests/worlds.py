"""A database with rows to schedule, and a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from models import (
    Attempt,
    AttemptNode,
    Database,
    Event,
    Job,
    Node,
    Project,
)
from models.queries.jobs import add_job
from scheduler.core.spec import JobSpec, content_hash, write_spec
from scheduler.core.states import JobState
from scheduler.shell.loop import Scheduler, SchedulerConfig

START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """A database with a clock that only the test moves."""

    database: Database
    now: datetime = START

    def clock(self) -> datetime:
        """Return the test's time."""
        return self.now

    def scheduler(self, holder: str = "a") -> Scheduler:
        """Return a scheduler that looks at this world."""
        config = SchedulerConfig(
            holder=holder,
            poll=timedelta(seconds=4),
            lease=timedelta(seconds=60),
            leader_lease=timedelta(seconds=10),
            silence_max=timedelta(seconds=16),
            reconcile_every=timedelta(0),
        )
        return Scheduler(self.database, config, self.clock)

    def add_node(self, name: str, *, cpus: int = 2, gpus: int = 0) -> str:
        """Add a node that has just been heard."""
        with self.database.write() as session:
            node = Node(
                name=name,
                pool="default",
                credential_sha256=name,
                capacity={
                    "cpu_milli": cpus * 1000,
                    "memory_mib": 8192,
                    "gpus": [{"index": index} for index in range(gpus)],
                },
                created_at=self.now,
                heartbeat_at=self.now,
            )
            session.add(node)
            session.flush()
            return node.id

    def hear(self, node_id: str) -> None:
        """Let a node give a sign of life."""
        with self.database.write() as session:
            session.get_one(Node, node_id).heartbeat_at = self.now

    def add_job(self, spec: JobSpec | None = None, **columns: object) -> str:
        """Submit a job."""
        spec = spec or JobSpec(recipe="r", workers=2)
        document = write_spec(spec)
        with self.database.write() as session:
            values: dict[str, object] = {
                "project_id": session.scalars(select(Project.id)).one(),
                "name": "job",
                "labels": {},
                "spec": document,
                "spec_sha256": content_hash(document),
                "state": JobState.PENDING,
                "reason": "Submitted",
                "message": "",
                "state_changed_at": self.now,
                "priority": spec.priority,
                "queue": "default",
                "pool": spec.pool,
                "num_workers": spec.num_workers,
                "request_gpus": spec.resources.gpus,
                "request_cpu_milli": None,
                "request_memory_mib": None,
                "is_held": spec.hold,
                "created_at": self.now,
            }
            job = Job(**{**values, **columns})
            add_job(session, job, now=self.now, data={})
            return job.id

    def job(self, job_id: str) -> Job:
        """Return the job as it is stored."""
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def node(self, node_id: str) -> Node:
        """Return the node as it is stored."""
        with self.database.read() as session:
            return session.get_one(Node, node_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the job's attempts, oldest first."""
        with self.database.read() as session:
            statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
            return list(session.scalars(statement))

    def parts(self, attempt_id: str) -> list[AttemptNode]:
        """Return the attempt's nodes, in the order of their ranks."""
        with self.database.read() as session:
            statement = select(AttemptNode).where(AttemptNode.attempt_id == attempt_id)
            return list(session.scalars(statement.order_by(AttemptNode.node_rank)))

    def history(self, job_id: str) -> list[str]:
        """Return the types of the job's events, and check that their numbers have no gap."""
        with self.database.read() as session:
            statement = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
            events = list(session.scalars(statement))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[-1].seq == self.job(job_id).version
        return [event.type for event in events]
