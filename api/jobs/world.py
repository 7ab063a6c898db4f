"""What the rules of a spec may know of the cluster: pools and what their nodes could hold.

Read at most once a second for the common case: a spec that is fine with a view a second old. A
spec that is refused is checked again with a fresh one, so that nobody is told old news.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from sqlalchemy import select

from models import Database, Node, Pool
from models.node import read_capacity
from scheduler.core.spec_rules import PoolView, World

FRESH_SECONDS = 1.0


class Worlds:
    """Gives the present world; safe to use from any thread."""

    def __init__(
        self, database: Database, recipes: frozenset[str], input_roots: tuple[str, ...]
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
            world = World(
                recipes=self._recipes, pools=self._read_pools(), input_roots=self._input_roots
            )
            self._kept = (read_at, world)
        return world

    def _read_pools(self) -> Mapping[str, PoolView]:
        with self._database.read() as session:
            names = session.scalars(select(Pool.name)).all()
            nodes = session.execute(
                select(Node.pool, Node.capacity).where(Node.capacity.is_not(None))
            ).all()
        return {
            name: PoolView(
                nodes=tuple(read_capacity(capacity) for pool, capacity in nodes if pool == name)
            )
            for name in names
        }
