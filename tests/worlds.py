"""A database with rows to schedule, and a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, select, update

from models import (
    Attempt,
    AttemptNode,
    Checkpoint,
    CheckpointState,
    Database,
    Event,
    Job,
    JobDependency,
    Node,
    Project,
)
from models.queries.attempts import advance_attempt, end_attempt
from models.queries.jobs import add_job, advance_job, record_event
from scheduler.core.reasons import Reason
from scheduler.core.resources import gib_to_mib
from scheduler.core.retry import AttemptEnd, Outcome
from scheduler.core.spec import JobSpec, content_hash, write_spec
from scheduler.core.states import AttemptEvent, JobEvent, JobState
from scheduler.shell.loop import Scheduler, SchedulerConfig
from scheduler.shell.snapshot import Sight

START = datetime(2030, 1, 1, tzinfo=UTC)
SIGHT = Sight(silence_max=timedelta(seconds=16), lease=timedelta(seconds=60))


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
            lease=SIGHT.lease,
            leader_lease=timedelta(seconds=10),
            silence_max=SIGHT.silence_max,
            reconcile_every=timedelta(0),
        )
        return Scheduler(self.database, config, self.clock)

    def add_node(self, name: str, *, cpus: int = 2, gpus: int = 0, **columns: Any) -> str:
        """Add a node that has just been heard."""
        with self.database.write() as session:
            values: dict[str, object] = {
                "name": name,
                "pool": "default",
                "credential_sha256": name,
                "capacity": {
                    "cpu_milli": cpus * 1000,
                    "memory_mib": 8192,
                    "gpus": [{"index": index} for index in range(gpus)],
                },
                "created_at": self.now,
                "heartbeat_at": self.now,
            }
            node = Node(**{**values, **columns})
            session.add(node)
            session.flush()
            return node.id

    def change_node(self, name: str, **columns: object) -> None:
        """Change a node as an administrator does."""
        with self.database.write() as session:
            session.execute(update(Node).where(Node.name == name).values(columns))

    def node_ids(self) -> list[str]:
        """Return the ids of all nodes."""
        with self.database.read() as session:
            return list(session.scalars(select(Node.id).order_by(Node.id)))

    def forward(self, by: timedelta) -> None:
        """Let time pass in which nobody is heard."""
        self.now += by

    def hear(self, node_id: str) -> None:
        """Let a node give a sign of life."""
        with self.database.write() as session:
            session.get_one(Node, node_id).heartbeat_at = self.now

    def renew_leases(self) -> None:
        """Let the supervisors of all live attempts be heard."""
        open_parts = AttemptNode.exited_at.is_(None)
        with self.database.write() as session:
            for part in session.scalars(select(AttemptNode).where(open_parts)):
                part.lease_expires_at = self.now + SIGHT.lease

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
                "recipe": spec.recipe,
                "priority": spec.priority,
                "queue": "default",
                "pool": spec.pool,
                "num_workers": spec.num_workers,
                "request_gpus": spec.resources.gpus,
                "request_cpu_milli": _milli(spec.resources.cpus),
                "request_memory_mib": gib_to_mib(spec.resources.memory_gib),
                "is_held": spec.hold,
                "created_at": self.now,
            }
            job = Job(**{**values, **columns})
            add_job(session, job, now=self.now, data={})
            session.add_all(
                JobDependency(job_id=job.id, depends_on_job_id=needed_id)
                for needed_id in spec.depends_on
            )
            return job.id

    def change_job(self, job_id: str, kind: str = "job.edited", **columns: object) -> None:
        """Change a job as somebody who is not the scheduler does, with an event."""
        with self.database.write() as session:
            job = session.get_one(Job, job_id)
            for name, value in columns.items():
                setattr(job, name, value)
            record_event(session, job, kind, now=self.now)

    def join(self, job_id: str) -> None:
        """Let every rank of a job that starts run."""
        with self.database.write() as session:
            job = session.get_one(Job, job_id)
            attempt = session.scalars(_live_attempt(job_id)).one()
            advance_attempt(attempt, AttemptEvent.JOINED)
            attempt.started_at = self.now
            advance_job(session, job, JobEvent.JOINED, reason=Reason.TRAINING, now=self.now)

    def end(self, job_id: str, outcome: Outcome = "succeeded") -> None:
        """Let the supervisors of a job's live attempt report its end."""
        with self.database.write() as session:
            job = session.get_one(Job, job_id)
            end = AttemptEnd(outcome=outcome, stop_reason=job.stop_reason)
            end_attempt(session, session.scalars(_live_attempt(job_id)).one(), end, now=self.now)

    def progress(self, job_id: str, **said: float | None) -> None:
        """Let a job's live attempt say how far it is; that makes no event."""
        with self.database.write() as session:
            session.scalars(_live_attempt(job_id)).one().progress = dict(said)

    def save(self, job_id: str, step: int) -> str:
        """Let a job's live attempt commit a checkpoint."""
        with self.database.write() as session:
            job = session.get_one(Job, job_id)
            attempt = session.scalars(_live_attempt(job_id)).one()
            checkpoint = Checkpoint(
                job_id=job_id,
                attempt_id=attempt.id,
                project_id=job.project_id,
                name=f"step-{step}",
                step=step,
                metrics={},
                state=CheckpointState.COMMITTED,
                size_bytes=1,
                created_at=self.now,
                committed_at=self.now,
            )
            session.add(checkpoint)
            session.flush()
            record_event(session, job, "checkpoint.committed", now=self.now)
            return checkpoint.id

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


def _live_attempt(job_id: str) -> Select[Attempt]:
    return select(Attempt).where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))


def _milli(cpus: float | None) -> int | None:
    return None if cpus is None else round(cpus * 1000)
