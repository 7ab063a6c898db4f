"""Valid objects with overrides: job documents, rows of nodes and attempts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from models import Allocation, Attempt, AttemptNode, Checkpoint, CheckpointState, Job, Node, new_id
from models.queries.jobs import advance_job
from scheduler.core.states import AttemptState, JobEvent

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def job_document(**overrides: Any) -> dict[str, Any]:
    """Return a spec that every fresh service accepts."""
    return {"recipe": "image-classifier", "workers": 2, "config": {"epochs": 3}, **overrides}


def add_node(session: Session, name: str = "box1", **overrides: Any) -> Node:
    """Add a node with two CPUs that has just been heard."""
    values: dict[str, Any] = {
        "pool": "default",
        "credential_sha256": f"hash of {name}",
        "address": "127.0.0.1",
        "version": "0.1.0",
        "capacity": {"cpu_milli": 2000, "memory_mib": 8192, "gpus": []},
        "created_at": NOW,
        "heartbeat_at": datetime.now(UTC),
    }
    node = Node(name=name, **{**values, **overrides})
    session.add(node)
    session.flush()
    return node


def start_job(session: Session, job_id: str, node: Node, *, is_joined: bool = True) -> Attempt:
    """Place a job on `node` as the scheduler would: a live attempt that holds slots."""
    job = session.get_one(Job, job_id)
    now = datetime.now(UTC)
    advance_job(session, job, JobEvent.ADMITTED, reason="WaitingForPlacement", now=now)
    advance_job(session, job, JobEvent.PLACED, reason="Launching", now=now)
    job.epoch += 1
    job.num_attempts += 1
    attempt = Attempt(
        job_id=job_id,
        number=job.num_attempts,
        epoch=job.epoch,
        state=AttemptState.RUNNING if is_joined else AttemptState.LAUNCHING,
        created_at=now,
        started_at=now if is_joined else None,
    )
    session.add(attempt)
    session.flush()
    ranks = [
        {"rank": rank, "local_rank": rank, "gpu_indices": []} for rank in range(job.num_workers)
    ]
    session.add(
        AttemptNode(
            attempt_id=attempt.id, node_id=node.id, node_rank=0, ranks=ranks, lease_expires_at=now
        )
    )
    cpu_milli = 1000 * job.num_workers
    session.add(Allocation(attempt_id=attempt.id, node_id=node.id, cpu_milli=cpu_milli))
    session.execute(
        update(Node)
        .where(Node.id == node.id)
        .values(cpu_milli_used=Node.cpu_milli_used + cpu_milli)
    )
    if is_joined:
        advance_job(session, job, JobEvent.JOINED, reason="Training", now=now)
    session.flush()
    return attempt


def add_checkpoint(session: Session, attempt: Attempt, *, step: int = 10, **overrides: Any) -> str:
    """Add a committed checkpoint of `attempt` without bytes; return its id."""
    job = session.get_one(Job, attempt.job_id)
    values: dict[str, Any] = {
        "name": f"ready-{step:012d}-{new_id('x')[-8:]}",
        "metrics": {},
        "state": CheckpointState.COMMITTED,
        "size_bytes": 0,
        "created_at": NOW,
        "committed_at": NOW,
    }
    checkpoint = Checkpoint(
        job_id=job.id,
        attempt_id=attempt.id,
        project_id=job.project_id,
        step=step,
        **{**values, **overrides},
    )
    session.add(checkpoint)
    session.flush()
    return checkpoint.id
