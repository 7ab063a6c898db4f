"""Who waits, in order: one line for each kind of gang of each user. Mutable, deterministic.

Inside a line nothing depends on the clock, so time passing re-sorts nothing; a pass compares the
heads of lines only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from scheduler.core.cluster import JobView, Shape
from scheduler.core.estimates import Estimate

LineKey = tuple[str, str, str, str, Shape]
Place = tuple[int, int, int, str]
"""(-priority, key, submit order, id): smaller goes first."""


@dataclass(slots=True)
class Entry:
    """A job, and what the pass has worked out about it.

    Attributes:
        size: of the gang, in thousandths of a GPU.
        estimate: what remains; of a running job as of its last change.
        place: in its line, or among the running.
        key: of a running job, as of the last look at it.
        stale_ms: when that look is too old to judge it by.
        price: what its project and user pay, as of the last change of prices.
        is_fixed: whether nobody may ask it to go: it is leaving, may not be preempted, or its
            budget of evictions is spent.
    """

    view: JobView
    size: int
    estimate: Estimate
    place: Place
    key: int = 0
    stale_ms: int = 0
    price: int = 0
    is_fixed: bool = False

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.view.job_id


class Line:
    """Jobs of one user that want the same, best first.

    Attributes:
        is_alive: whether something has changed since its head was last found blocked.
        blocked: (reason, message) of its head, as the last look found it.
        unexplained: jobs behind the head that do not say yet that they wait behind others.
    """

    __slots__ = ("blocked", "is_alive", "key", "places", "project", "unexplained", "user")

    def __init__(self, key: LineKey) -> None:
        self.key = key
        self.project, self.user = key[1], key[2]
        self.places: list[Place] = []
        self.is_alive = False
        self.blocked: tuple[str, str] = ("", "")
        self.unexplained: list[str] = []

    def add(self, place: Place) -> None:
        """Put a job into the line."""
        insort(self.places, place)

    def discard(self, place: Place) -> None:
        """Take a job out of the line."""
        at = bisect_left(self.places, place)
        if at < len(self.places) and self.places[at] == place:
            del self.places[at]


class Lines:
    """All lines, by pool."""

    def __init__(self) -> None:
        self.by_key: dict[LineKey, Line] = {}
        self.by_pool: dict[str, dict[LineKey, Line]] = {}
        self.alive: dict[LineKey, Line] = {}

    def add(self, entry: Entry) -> Line:
        """Put a job into its line, and wake the line."""
        view = entry.view
        key = (view.pool, view.project, view.user, view.queue, view.shape)
        line = self.by_key.get(key)
        if line is None:
            line = self.by_key[key] = Line(key)
            self.by_pool.setdefault(view.pool, {})[key] = line
        line.add(entry.place)
        self.wake(line)
        return line

    def discard(self, entry: Entry) -> None:
        """Take a job out of its line."""
        view = entry.view
        key = (view.pool, view.project, view.user, view.queue, view.shape)
        line = self.by_key.get(key)
        if line is None:
            return
        line.discard(entry.place)
        if line.places:
            self.wake(line)  # it may have another head now
        else:
            del self.by_key[key]
            del self.by_pool[view.pool][key]
            self.alive.pop(key, None)

    def wake(self, line: Line) -> None:
        """Let the next pass look at the line."""
        if not line.is_alive:
            line.is_alive = True
            self.alive[line.key] = line

    def rest(self, line: Line) -> None:
        """Do not look at it before something changes."""
        line.is_alive = False
        self.alive.pop(line.key, None)

    def wake_pool(self, pool: str) -> None:
        """Something came free in `pool`: every line of it may go on."""
        for line in self.by_pool.get(pool, {}).values():
            self.wake(line)

    def wake_all(self) -> None:
        """Prices or rules have changed."""
        for line in self.by_key.values():
            self.wake(line)
