"""Who waits, in order: one line for each kind of gang of each user. Mutable, deterministic.

Inside a line nothing depends on the clock, so time passing re-sorts nothing; a pass compares the
heads of lines only. Lines whose gangs are alike are one kind: what comes free is tried with each
kind once, and wakes its lines only when there may be something in it for them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from scheduler.core.cluster import JobView, Shape
from scheduler.core.estimates import Estimate
from scheduler.core.tenants import Tenant

LineKey = tuple[str, str, str, str, Shape]
Place = tuple[int, int, int, str]
"""(-priority, key, submit order, id): smaller goes first."""
Rank = tuple[int, int, int, int, str]
"""(1 when borrowed, -priority, priced key, submit order, id): smaller goes first."""


@dataclass(slots=True, eq=False)
class Entry:
    """A job, and what the pass has worked out about it.

    Attributes:
        size: of the gang, in thousandths of a GPU.
        num_gpus: of the gang.
        estimate: what remains; of a running job as of its last change.
        place: in its line, or among the running.
        tenant, member: its project, and its user there; None where nobody said who.
        line: where it waits, None while it does not.
        key: of a running job, as of the last look at it.
        stale_ms: when that look is too old to judge it by.
        price: what the project and user of a running job pay, as of the last change of prices.
        is_fixed: whether nobody may ask it to go: it is leaving, may not be preempted, or its
            budget of evictions is spent.
    """

    view: JobView
    size: int
    num_gpus: int
    estimate: Estimate
    place: Place
    tenant: Tenant
    member: Tenant | None
    line: Line | None = None
    key: int = 0
    stale_ms: int = 0
    price: int = 0
    is_fixed: bool = False

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.view.job_id


@dataclass(slots=True, eq=False)
class Vain:
    """A search for room that found none, however long the one that looked had waited.

    It holds for all of the kind that stand no higher, until something has changed on a node.

    Attributes:
        order_version: of the state; another one says that who outranks whom has changed.
        version: of the nodes.
        node_ids: the nodes that were looked at.
        able: those of them that have the GPUs for a part of the gang.
        lacks: the GPUs that more must be free elsewhere so that another one has, by moving.
    """

    entry: Entry
    rank: Rank
    order_version: int
    version: int
    node_ids: frozenset[str]
    able: frozenset[str]
    lacks: dict[str, int]


class Kind:
    """Gangs of one shape that wait for one pool: what one finds, any of them could.

    Attributes:
        restless: lines to look at whenever something comes free, whatever was found in vain.
        full_version: of the nodes, when no place was free.
        vain: for how many evictions of a victim at most, the last search that found no room.
        told: the reason that its heads show.
    """

    __slots__ = ("full_version", "lines", "pool", "restless", "shape", "told", "vain")

    def __init__(self, pool: str, shape: Shape) -> None:
        self.pool, self.shape = pool, shape
        self.lines: dict[LineKey, Line] = {}
        self.restless: dict[LineKey, Line] = {}
        self.full_version = -1
        self.vain: dict[int, Vain] = {}
        self.told = ""


class Line:
    """Jobs of one user that want the same, best first.

    Attributes:
        is_alive: whether something has changed since its head was last found blocked.
        is_capped: whether a quota was in the way of its head: only its project can change that.
        blocked: (reason, message) of its head, as the last look found it.
        unexplained: jobs behind the head that do not say yet that they wait behind others.
    """

    __slots__ = (
        "blocked",
        "is_alive",
        "is_capped",
        "key",
        "kind",
        "member",
        "num_gpus",
        "places",
        "project",
        "tenant",
        "unexplained",
        "user",
    )

    def __lt__(self, other: Line) -> bool:
        """Ranks decide; two lines are never equal in them."""
        return self.key[:4] < other.key[:4]

    def __init__(self, key: LineKey, kind: Kind, tenant: Tenant, member: Tenant | None) -> None:
        self.key, self.kind = key, kind
        self.project, self.user = key[1], key[2]
        self.tenant, self.member = tenant, member
        self.num_gpus = kind.shape.num_gpus
        self.places: list[Place] = []
        self.is_alive = self.is_capped = False
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
    """All lines, by pool, kind and project."""

    def __init__(self) -> None:
        self.by_key: dict[LineKey, Line] = {}
        self.by_pool: dict[str, dict[LineKey, Line]] = {}
        self.by_project: dict[str, dict[LineKey, Line]] = {}
        self.kinds: dict[str, dict[Shape, Kind]] = {}
        self.alive: dict[LineKey, Line] = {}

    def add(self, entry: Entry) -> Line:
        """Put a job into its line, and wake the line."""
        view = entry.view
        key = (view.pool, view.project, view.user, view.queue, view.shape)
        line = self.by_key.get(key)
        if line is None:
            line = self._open(key, entry)
        line.add(entry.place)
        entry.line = line
        self.wake(line)
        return line

    def discard(self, entry: Entry) -> None:
        """Take a job out of its line."""
        line, entry.line = entry.line, None
        if line is None:
            return
        line.discard(entry.place)
        if line.places:
            self.wake(line)  # it may have another head now
        else:
            self._close(line)

    def wake(self, line: Line) -> None:
        """Let the next pass look at the line."""
        if not line.is_alive:
            line.is_alive = True
            self.alive[line.key] = line

    def rest(self, line: Line) -> None:
        """Do not look at it before something changes."""
        line.is_alive = False
        self.alive.pop(line.key, None)

    def wake_project(self, project: str) -> None:
        """A quota may no longer be in the way of `project`, or lift it above others."""
        for line in self.by_project.get(project, {}).values():
            self.wake(line)

    def wake_all(self) -> None:
        """Prices or rules have changed."""
        for line in self.by_key.values():
            self.wake(line)

    def _open(self, key: LineKey, entry: Entry) -> Line:
        pool, project, _, _, shape = key
        kinds = self.kinds.setdefault(pool, {})
        kind = kinds.get(shape)
        if kind is None:
            kind = kinds[shape] = Kind(pool, shape)
        line = Line((*key[:4], kind.shape), kind, entry.tenant, entry.member)
        for lines in (
            self.by_key,
            self.by_pool.setdefault(pool, {}),
            self.by_project.setdefault(project, {}),
            kind.lines,
        ):
            lines[line.key] = line
        return line

    def _close(self, line: Line) -> None:
        key, kind = line.key, line.kind
        del self.by_key[key], self.by_pool[kind.pool][key], kind.lines[key]
        del self.by_project[line.project][key]
        self.alive.pop(key, None)
        kind.restless.pop(key, None)
        if not kind.lines:
            del self.kinds[kind.pool][kind.shape]
        if not self.by_project[line.project]:
            del self.by_project[line.project]
