"""What a node has been told lately, so that a long-poll does not answer the same thing at once.

Only a hint that saves calls: it is lost with the process, and then things are told once more.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable


class Told:
    """Remembers things for a while. Safe to share between threads."""

    def __init__(self, *, for_s: float) -> None:
        self._for_s = for_s
        self._until_s: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def find_new(self, things: Iterable[Hashable], *, now_s: float) -> set[Hashable]:
        """Return those that were not told within the last `for_s` seconds (monotonic clock)."""
        with self._lock:
            return {thing for thing in things if self._until_s.get(thing, 0.0) <= now_s}

    def note(self, things: Iterable[Hashable], *, now_s: float, for_s: float | None = None) -> None:
        """Say that these are being told now, and need not be told again for `for_s` seconds."""
        with self._lock:
            if len(self._until_s) > 10_000:
                self._until_s = {
                    thing: until_s for thing, until_s in self._until_s.items() if until_s > now_s
                }
            for thing in things:
                self._until_s[thing] = now_s + (self._for_s if for_s is None else for_s)
