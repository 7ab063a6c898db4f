"""Rows of nodes → `NodeView`s. Read whole in every pass, so what a node has is parsed once."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Text, cast, select
from sqlalchemy.orm import Session

from models.node import Node, read_capacity, read_gpu_kind
from scheduler.core.cluster import NodeView
from scheduler.core.resources import Resources

_STATEMENT = select(
    Node.id,
    Node.pool,
    Node.rack,
    # As text: most passes find what they have parsed before.
    cast(Node.capacity, Text).label("capacity"),
    Node.is_cordoned,
    Node.is_draining,
    Node.quarantined_until,
    Node.heartbeat_at,
).order_by(Node.id)


_Row = Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hardware:
    """What a node said that it has."""

    capacity: Resources
    gpu_indices: tuple[int, ...]
    gpu_model: str
    gpu_memory_mib: int


def read_nodes(session: Session, *, now: datetime, silence_max: timedelta) -> tuple[NodeView, ...]:
    """Return all nodes that have ever been heard, by id."""
    views = []
    for row in session.execute(_STATEMENT):
        hardware = None if row.capacity is None else _parse(row.capacity)
        if hardware is None or row.heartbeat_at is None:
            continue  # it has a name but has never said what it has
        views.append(
            NodeView(
                node_id=row.id,
                pool=row.pool,
                rack=row.rack or "",
                gpu_model=hardware.gpu_model,
                gpu_memory_mib=hardware.gpu_memory_mib,
                capacity=hardware.capacity,
                gpu_indices=hardware.gpu_indices,
                closed_reason=_find_closed_reason(row, now=now, silence_max=silence_max),
            )
        )
    return tuple(views)


def _find_closed_reason(row: _Row, *, now: datetime, silence_max: timedelta) -> str:
    if row.is_draining:
        return "draining"
    if row.is_cordoned:
        return "cordoned"
    if row.quarantined_until is not None and row.quarantined_until > now:
        return "quarantined"
    return "silent" if now - row.heartbeat_at > silence_max else ""


@functools.lru_cache(maxsize=20_000)
def _parse(text: str) -> _Hardware | None:
    document = json.loads(text)
    if document is None:
        return None
    gpu_model, gpu_memory_mib = read_gpu_kind(document)
    return _Hardware(
        capacity=read_capacity(document),
        gpu_indices=tuple(gpu["index"] for gpu in document["gpus"]),
        gpu_model=gpu_model,
        gpu_memory_mib=gpu_memory_mib,
    )
