"""From rows to nodes as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.nodes import schemas
from models import Allocation, Node
from models.node import read_capacity
from scheduler.core.resources import Resources


def represent_nodes(
    session: Session, nodes: Sequence[Node], *, now: datetime, silence_max: timedelta
) -> list[schemas.Node]:
    """Return `nodes` as the API shows them; two queries, however many they are.

    Args:
        silence_max: how long a node that works may be silent.
    """
    gpus_taken, attempts = _count_held(session, [node.id for node in nodes])
    return [
        _represent(
            node,
            gpus_taken=gpus_taken.get(node.id, 0),
            num_attempts=attempts.get(node.id, 0),
            state=_state(node, now, silence_max),
            quarantine=_quarantine(node, now),
        )
        for node in nodes
    ]


def add_room(rooms: Sequence[schemas.Room]) -> schemas.Room:
    """Return the sum."""
    return schemas.Room(
        gpus=sum(room.gpus for room in rooms),
        cpus=round(sum(room.cpus for room in rooms), 3),
        memory_gib=round(sum(room.memory_gib for room in rooms), 3),
    )


def _count_held(
    session: Session, node_ids: Sequence[str]
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    rows = session.execute(
        select(
            Allocation.node_id,
            func.count(Allocation.gpu_index),
            func.count(Allocation.attempt_id.distinct()),
        )
        .where(Allocation.node_id.in_(node_ids))
        .group_by(Allocation.node_id)
    ).all()
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


def _state(node: Node, now: datetime, silence_max: timedelta) -> schemas.NodeState:
    if node.heartbeat_at is None or now - node.heartbeat_at > silence_max:
        return schemas.NodeState.SILENT
    if node.is_draining:
        return schemas.NodeState.DRAINING
    if node.is_cordoned:
        return schemas.NodeState.CORDONED
    return (
        schemas.NodeState.READY if _quarantine(node, now) is None else schemas.NodeState.QUARANTINED
    )


def _quarantine(node: Node, now: datetime) -> schemas.Quarantine | None:
    if node.quarantined_until is None or node.quarantined_until <= now:
        return None
    return schemas.Quarantine(until=node.quarantined_until, message=node.quarantine_message or "")


def _represent(
    node: Node,
    *,
    gpus_taken: int,
    num_attempts: int,
    state: schemas.NodeState,
    quarantine: schemas.Quarantine | None,
) -> schemas.Node:
    capacity = read_capacity(node.capacity)
    taken = Resources(
        num_gpus=gpus_taken, cpu_milli=node.cpu_milli_used, memory_mib=node.memory_mib_used
    )
    return schemas.Node(
        id=node.id,
        name=node.name,
        pool=node.pool,
        rack=node.rack,
        state=state,
        quarantine=quarantine,
        address=node.address,
        version=node.version,
        capacity=_room(capacity),
        free=_room(capacity.minus(taken)),
        gpus=[
            schemas.Gpu(
                index=gpu["index"],
                uuid=gpu["uuid"],
                model=gpu["model"],
                memory_gib=round(gpu["memory_mib"] / 1024, 3),
            )
            for gpu in (node.capacity or {}).get("gpus", [])
        ],
        num_attempts=num_attempts,
        created_at=node.created_at,
        heartbeat_at=node.heartbeat_at,
    )


def _room(room: Resources) -> schemas.Room:
    return schemas.Room(
        gpus=max(0, room.num_gpus),
        cpus=max(0, room.cpu_milli) / 1000,
        memory_gib=round(max(0, room.memory_mib) / 1024, 3),
    )
