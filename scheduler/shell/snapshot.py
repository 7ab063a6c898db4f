"""Rows → `ClusterView`: the only code that knows both."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.attempt import Allocation
from models.job import Job
from models.node import Node, read_capacity
from scheduler.core.cluster import ClusterView, NodeView, WaitingJob
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources, resolve_request
from scheduler.core.spec import ResourceRequest
from scheduler.core.states import JobState

_WAITING = (JobState.PENDING, JobState.QUEUED)


def read_cluster(session: Session, *, now: datetime, silence_max: timedelta) -> ClusterView:
    """Return what the database says now.

    Args:
        silence_max: a node that has not been heard for longer gets no new work.
    """
    nodes = _read_nodes(session, now=now, silence_max=silence_max)
    gpu_pools = {node.pool for node in nodes if node.capacity.num_gpus}
    return ClusterView(
        nodes=nodes,
        waiting=_read_waiting(session, gpu_pools),
    )


def _read_nodes(session: Session, *, now: datetime, silence_max: timedelta) -> tuple[NodeView, ...]:
    taken: dict[str, set[int]] = {}
    statement = select(Allocation.node_id, Allocation.gpu_index).where(
        Allocation.gpu_index.is_not(None)
    )
    for node_id, gpu_index in session.execute(statement):
        if gpu_index is not None:
            taken.setdefault(node_id, set()).add(gpu_index)
    views = []
    for node in session.scalars(select(Node).order_by(Node.id)):
        if node.capacity is None or node.heartbeat_at is None:
            continue  # it has a name but has never said what it has
        gpu_indices = [gpu["index"] for gpu in node.capacity["gpus"]]
        free = tuple(i for i in gpu_indices if i not in taken.get(node.id, set()))
        capacity = read_capacity(node.capacity)
        views.append(
            NodeView(
                node_id=node.id,
                pool=node.pool,
                capacity=capacity,
                free=Resources(
                    num_gpus=len(free),
                    cpu_milli=max(0, capacity.cpu_milli - node.cpu_milli_used),
                    memory_mib=max(0, capacity.memory_mib - node.memory_mib_used),
                ),
                free_gpu_indices=free,
                is_schedulable=not (node.is_cordoned or node.is_draining)
                and now - node.heartbeat_at <= silence_max,
            )
        )
    return tuple(views)


def _read_waiting(session: Session, gpu_pools: set[str]) -> tuple[WaitingJob, ...]:
    columns = (
        Job.id,
        Job.version,
        Job.state,
        Job.created_at,
        Job.priority,
        Job.pool,
        Job.num_workers,
        Job.request_gpus,
        Job.request_cpu_milli,
        Job.request_memory_mib,
        Job.is_held,
        Job.not_before_at,
        Job.not_before_reason,
        Job.reason,
        Job.message,
    )
    # A job that is held and says so is nobody's concern until somebody releases it.
    is_settled = Job.is_held & (Job.reason == Reason.HELD_BY_USER)
    statement = select(*columns).where(Job.state.in_(_WAITING), ~is_settled).order_by(Job.id)
    return tuple(
        WaitingJob(
            job_id=row.id,
            version=row.version,
            state=row.state,
            sequence=round(row.created_at.timestamp() * 1_000_000),
            priority=row.priority,
            pool=row.pool,
            num_workers=row.num_workers,
            per_worker=_per_worker(row.request_gpus, row.request_cpu_milli, row.request_memory_mib,
                                   pool_has_gpus=row.pool in gpu_pools),
            is_held=row.is_held,
            not_before_ms=0 if row.not_before_at is None else _ceil_ms(row.not_before_at),
            not_before_reason=row.not_before_reason or Reason.BEGIN_TIME_NOT_REACHED,
            reason=row.reason,
            message=row.message,
        )
        for row in session.execute(statement)
    )  # fmt: skip


def _per_worker(
    gpus: int | None, cpu_milli: int | None, memory_mib: int | None, *, pool_has_gpus: bool
) -> Resources:
    request = ResourceRequest(
        gpus=gpus,
        cpus=None if cpu_milli is None else cpu_milli / 1000,
        memory_gib=None if memory_mib is None else memory_mib / 1024,
    )
    return resolve_request(request, pool_has_gpus=pool_has_gpus)


def _ceil_ms(instant: datetime) -> int:
    return -(-round(instant.timestamp() * 1_000_000) // 1000)
