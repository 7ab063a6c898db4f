"""Who may read how far ahead of whom: the rule of stale synchronous parallel. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Gate(Generic[Key]):
    """Counts the pushes of each replica, and opens for reads that are not too far ahead.

    A replica's clock is the number of its pushes. It may read while its clock is at most
    `staleness` ahead of the slowest's: what it reads then misses nobody's pushes but the last
    `staleness` ones. With 0 all go in step; with None nobody waits.

    Attributes:
        gaps: how often a read was how many pushes ahead of the slowest.

    Source:
        Ho et al., NIPS 2013.
    """

    def __init__(self, staleness: int | None) -> None:
        self.staleness = staleness
        self.gaps: Counter[int] = Counter()
        self._clocks: dict[Key, int] = {}

    def enter(self, key: Key) -> None:
        """Count a replica from now on, as one of the slowest."""
        self._clocks.setdefault(key, min(self._clocks.values(), default=0))

    def leave(self, key: Key) -> None:
        """Count it no more: it is gone, or has nothing to do."""
        self._clocks.pop(key, None)

    def push(self, key: Key) -> None:
        """A replica's update has been applied."""
        self.enter(key)
        self._clocks[key] += 1

    def may_read(self, key: Key) -> bool:
        """Whether the state is fresh enough for a replica."""
        return self.staleness is None or self._gap(key) <= self.staleness

    def read(self, key: Key) -> int:
        """Note that a replica has read, and return how far ahead it was."""
        gap = self._gap(key)
        self.gaps[gap] += 1
        return gap

    def _gap(self, key: Key) -> int:
        return self._clocks[key] - min(self._clocks.values())
