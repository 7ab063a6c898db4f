"""What the rules of a spec may know of the cluster: pools, what their nodes could hold, queues.

Read at most once a second for the common case: a spec that is fine with a view a second old. A
spec that is refused is checked again with a fresh one, so that nobody is told old news.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Database, Node, Pool, Queue
from models.node import read_capacity, read_gpu_kind
from scheduler.core.spec_rules import NodeOffer, PoolView, World

FRESH_SECONDS = 1.0


class Worlds:
    """Gives the present world; safe to use from any thread."""

    def __init__(
        self,
        database: Database,
        recipes: Mapping[str, frozenset[str]],
        input_roots: tuple[str, ...],
    ) -> None:
        self._database = database
        self._recipes = recipes
        self._input_roots = input_roots
        self._lock = threading.Lock()
        self._kept: tuple[float, World] | None = None

    def recent(self) -> World:
        """Return a view that may be `FRESH_SECONDS` old."""
        kept = self._kept
        if kept is not None and time.monotonic() - kept[0] < FRESH_SECONDS:
            return kept[1]
        return self.fresh()

    def fresh(self) -> World:
        """Return the view as of now."""
        with self._lock:
            read_at = time.monotonic()
            with self._database.read() as session:
                pools, queues = _read_pools(session), _read_queues(session)
            world = World(
                recipes=self._recipes, pools=pools, queues=queues, input_roots=self._input_roots
            )
            self._kept = (read_at, world)
        return world


def _read_pools(session: Session) -> Mapping[str, PoolView]:
    names = session.scalars(select(Pool.name)).all()
    nodes = session.execute(
        select(Node.pool, Node.capacity).where(Node.capacity.is_not(None))
    ).all()
    return {
        name: PoolView(nodes=tuple(_offer(capacity) for pool, capacity in nodes if pool == name))
        for name in names
    }


def _read_queues(session: Session) -> Mapping[str, str]:
    rows = session.execute(select(Queue.name, Queue.pool)).all()
    return {row.name: row.pool for row in rows}


def _offer(capacity: Mapping[str, Any] | None) -> NodeOffer:
    gpu_model, gpu_memory_mib = read_gpu_kind(capacity)
    return NodeOffer(
        capacity=read_capacity(capacity), gpu_model=gpu_model, gpu_memory_mib=gpu_memory_mib
    )
