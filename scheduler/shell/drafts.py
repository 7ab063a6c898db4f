"""Rows that a batch of decisions is about: read and locked at once, changed here, written at once.

Decides nothing and knows no decision. While the batch is applied nobody else changes these rows:
SQLite has one writer, PostgreSQL holds locks. So what is compared here stays true until it is
written, and a batch costs a handful of statements however many jobs it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, Row, Table, bindparam, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from models.attempt import Allocation, Attempt, AttemptNode
from models.base import Base
from models.checkpoint import Checkpoint, CheckpointState
from models.database import announce
from models.job import Event, Job
from models.node import Node, read_capacity
from models.queries.jobs import job_topic, node_topic
from scheduler.core.errors import IllegalTransition
from scheduler.core.resources import Resources
from scheduler.core.states import JobEvent, JobState, find_next_job_state
from scheduler.shell.job_rows import chunks


def _table(model: type[Base]) -> Table:
    return Base.metadata.tables[model.__tablename__]


_Row = Row[*tuple[Any, ...]]
_JOBS, _NODES = _table(Job), _table(Node)
_FIELDS = (
    "version",
    "state",
    "reason",
    "message",
    "state_changed_at",
    "epoch",
    "num_attempts",
    "not_before_at",
    "waiting_since_at",
    "not_before_reason",
    "stop_reason",
    "claim",
    "reservation",
)
_UPDATE_JOB = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("of_id"), _JOBS.c.version == bindparam("of_version"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS})
)
_UPDATE_NODE = (
    update(_NODES)
    .where(_NODES.c.id == bindparam("of_id"))
    .values(cpu_milli_used=bindparam("cpu_milli"), memory_mib_used=bindparam("memory_mib"))
)
# In this order: each points to rows of the ones before.
_INSERTS: dict[type[Base], Insert] = {
    model: insert(_table(model)) for model in (Event, Attempt, AttemptNode, Allocation)
}


@dataclass(slots=True, kw_only=True)
class JobDraft:
    """A job as it will be written.

    Attributes:
        read_version: what the row must still have then.
        resume_from: the checkpoint that its spec names.
    """

    id: str
    project_id: str
    read_version: int
    version: int
    state: JobState
    reason: str
    message: str
    state_changed_at: datetime
    epoch: int
    num_attempts: int
    num_workers: int
    request_gpus: int | None
    request_cpu_milli: int | None
    request_memory_mib: int | None
    resume_from: str | None
    not_before_at: datetime | None
    waiting_since_at: datetime | None
    not_before_reason: str | None
    stop_reason: str | None
    claim: dict[str, Any] | None
    reservation: dict[str, Any] | None


@dataclass(slots=True, kw_only=True)
class NodeDraft:
    """A node and what is taken of it."""

    id: str
    name: str
    is_open: bool
    room: Resources
    used: Resources
    free_gpus: set[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumable:
    """The checkpoint from which a job goes on."""

    checkpoint_id: str
    step: int


@dataclass(slots=True, kw_only=True)
class Drafts:
    """All rows of one batch.

    Attributes:
        resumables: by job; of those that have one.
        nodes_of: by job, where its live attempt runs.
    """

    jobs: dict[str, JobDraft] = field(default_factory=dict)
    nodes: dict[str, NodeDraft] = field(default_factory=dict)
    resumables: dict[str, Resumable] = field(default_factory=dict)
    nodes_of: dict[str, list[str]] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)
    _rows: dict[type[Base], list[dict[str, Any]]] = field(default_factory=dict)
    _topics: set[str] = field(default_factory=set)

    def advance(
        self,
        job: JobDraft,
        event: JobEvent,
        *,
        reason: str,
        message: str = "",
        now: datetime,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Take `job` to where `event` leads, as `models.queries.jobs.advance_job` does.

        Raises:
            IllegalTransition: the table has no such edge; nothing was changed.
        """
        state = find_next_job_state(job.state, event)
        if state is None:
            raise IllegalTransition(job.id, job.state, event, [])
        if state is not job.state:
            job.state_changed_at = now
        job.state, job.reason, job.message = state, reason, message
        if not state.has_attempt:
            job.stop_reason = None
        self.record(job, f"job.{state}", now=now, data=data)

    def record(
        self, job: JobDraft, kind: str, *, now: datetime, data: Mapping[str, Any] | None = None
    ) -> None:
        """Raise the job's version and write the event row of that version."""
        job.version += 1
        self.touch(job)
        self.add(
            Event,
            job_id=job.id,
            seq=job.version,
            type=kind,
            state=job.state.value,
            reason=job.reason,
            message=job.message,
            data=dict(data or {}),
            created_at=now,
        )
        # Not the scheduler's own topic: it knows what it has decided.
        self.tell(job_topic(job.id))

    def touch(self, job: JobDraft) -> None:
        """Let the job's row be written."""
        self._changed.add(job.id)

    def take(self, node: NodeDraft, taken: Resources, gpu_indices: Iterable[int]) -> None:
        """Take slots; the caller has checked that they are free."""
        node.used = Resources(
            num_gpus=node.used.num_gpus + taken.num_gpus,
            cpu_milli=node.used.cpu_milli + taken.cpu_milli,
            memory_mib=node.used.memory_mib + taken.memory_mib,
        )
        node.free_gpus.difference_update(gpu_indices)
        self._taken.add(node.id)
        self.tell(node_topic(node.id))

    def add(self, model: type[Base], **values: Any) -> None:
        """Let a row be inserted."""
        self._rows.setdefault(model, []).append(values)

    def tell(self, *topics: str) -> None:
        """Ring these once all is committed."""
        self._topics.update(topics)

    def write(self, session: Session) -> None:
        """Write what has changed.

        Raises:
            StaleDataError: a row is not as it was read, whatever the locks say.
        """
        changed = [self.jobs[job_id] for job_id in sorted(self._changed)]
        if changed:
            values = [_job_values(job) for job in changed]
            found = session.connection().execute(_UPDATE_JOB, values)
            if found.rowcount != len(changed):
                raise StaleDataError("a job has changed although its row was locked")
        for model, statement in _INSERTS.items():
            if rows := self._rows.get(model):
                session.connection().execute(statement, rows)
        if self._taken:
            used = [self.nodes[node_id] for node_id in sorted(self._taken)]
            session.connection().execute(_UPDATE_NODE, [_node_values(node) for node in used])
        announce(session, *self._topics)


def read_drafts(
    session: Session,
    *,
    job_ids: Iterable[str],
    starting_ids: set[str],
    stopping_ids: set[str],
    node_ids: Iterable[str],
) -> Drafts:
    """Read and lock the rows of a batch.

    Args:
        starting_ids: jobs that may get an attempt.
        stopping_ids: jobs whose nodes may have to be told.
    """
    drafts = Drafts()
    # Nodes first and in order, then the jobs that nobody else holds: whoever ends an attempt takes
    # its nodes in the same order and its job last, so nobody waits in a circle.
    for ids in chunks(node_ids):
        drafts.nodes.update(_read_nodes(session, ids))
    for ids in chunks(job_ids):
        rows = session.execute(
            select(*_JOB_COLUMNS)
            .where(Job.id.in_(ids))
            .with_for_update(key_share=True, skip_locked=True)
        )
        for row in rows:
            drafts.jobs[row.id] = JobDraft(**row._mapping, read_version=row.version)
    starting = [drafts.jobs[job_id] for job_id in sorted(starting_ids & drafts.jobs.keys())]
    drafts.resumables = _read_resumables(session, starting)
    for ids in chunks(stopping_ids):
        live = (
            select(Attempt.job_id, AttemptNode.node_id)
            .join(AttemptNode, AttemptNode.attempt_id == Attempt.id)
            .where(Attempt.job_id.in_(ids), Attempt.ended_at.is_(None))
            .order_by(Attempt.job_id, AttemptNode.node_rank)
        )
        for job_id, node_id in session.execute(live):
            drafts.nodes_of.setdefault(job_id, []).append(node_id)
    return drafts


_JOB_COLUMNS = (
    *(Job.__table__.c[name] for name in _FIELDS),
    Job.id,
    Job.project_id,
    Job.num_workers,
    Job.request_gpus,
    Job.request_cpu_milli,
    Job.request_memory_mib,
    Job.spec["resume_from"].as_string().label("resume_from"),
)


def _read_nodes(session: Session, ids: Iterable[str]) -> dict[str, NodeDraft]:
    rows = session.execute(
        select(
            Node.id,
            Node.name,
            Node.capacity,
            Node.is_cordoned,
            Node.is_draining,
            Node.cpu_milli_used,
            Node.memory_mib_used,
        )
        .where(Node.id.in_(ids))
        .order_by(Node.id)
        .with_for_update(key_share=True)
    ).all()
    held = session.execute(
        select(Allocation.node_id, Allocation.gpu_index).where(
            Allocation.node_id.in_(ids), Allocation.gpu_index.is_not(None)
        )
    )
    taken: dict[str, set[int | None]] = {}
    for node_id, gpu_index in held:
        taken.setdefault(node_id, set()).add(gpu_index)
    return {row.id: _draft_node(row, taken.get(row.id, set())) for row in rows}


def _draft_node(row: _Row, taken: set[int | None]) -> NodeDraft:
    gpus = () if row.capacity is None else row.capacity["gpus"]
    return NodeDraft(
        id=row.id,
        name=row.name,
        is_open=not (row.is_cordoned or row.is_draining),
        room=read_capacity(row.capacity),
        used=Resources(
            num_gpus=len(taken), cpu_milli=row.cpu_milli_used, memory_mib=row.memory_mib_used
        ),
        free_gpus={gpu["index"] for gpu in gpus} - taken,
    )


def _read_resumables(session: Session, jobs: Iterable[JobDraft]) -> dict[str, Resumable]:
    """Return what `find_resume_checkpoint` finds, for many jobs at once."""
    jobs = list(jobs)
    found: dict[str, Resumable] = {}
    for ids in chunks(job.id for job in jobs if job.num_attempts):
        # The best one last, so that it stays.
        rows = session.execute(
            select(Checkpoint.job_id, Checkpoint.id, Checkpoint.step)
            .join(Attempt, Attempt.id == Checkpoint.attempt_id)
            .where(Checkpoint.job_id.in_(ids), Checkpoint.state == CheckpointState.COMMITTED)
            .order_by(Attempt.number, Checkpoint.step, Checkpoint.id)
        )
        for job_id, checkpoint_id, step in rows:
            found[job_id] = Resumable(checkpoint_id=checkpoint_id, step=step)
    others = [job for job in jobs if job.resume_from and job.id not in found]
    named: dict[tuple[str, str], Resumable] = {}
    for ids in chunks({job.resume_from for job in others if job.resume_from}):
        rows = session.execute(
            select(Checkpoint.project_id, Checkpoint.id, Checkpoint.step).where(
                Checkpoint.id.in_(ids), Checkpoint.state == CheckpointState.COMMITTED
            )
        )
        for project_id, checkpoint_id, step in rows:
            resumable = Resumable(checkpoint_id=checkpoint_id, step=step)
            named[project_id, checkpoint_id] = resumable
    for job in others:
        checkpoint = named.get((job.project_id, job.resume_from or ""))
        if checkpoint is not None:
            found[job.id] = checkpoint
    return found


def _job_values(job: JobDraft) -> dict[str, Any]:
    values = {f"new_{name}": getattr(job, name) for name in _FIELDS}
    return {**values, "of_id": job.id, "of_version": job.read_version}


def _node_values(node: NodeDraft) -> dict[str, Any]:
    return {
        "of_id": node.id,
        "cpu_milli": node.used.cpu_milli,
        "memory_mib": node.used.memory_mib,
    }
