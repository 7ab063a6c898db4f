"""Who goes before a job: its own project's jobs by name, the others as numbers. Pure."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.core.cluster import JobView
from scheduler.core.estimates import estimate, measure_size
from scheduler.core.lines import Entry, Line, Rank
from scheduler.core.ranks import rank_entry, rank_in_line, rank_waiting
from scheduler.core.state import State

_NAMED_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Jobs that wait and go first.

    Attributes:
        own_ids: of the job's own project, the first of them in their order.
        own_gpu_ms, others_gpu_ms: GPUs times what is left, as limits and history say.
    """

    own_ids: tuple[str, ...] = ()
    num_own: int = 0
    own_gpu_ms: int = 0
    num_others: int = 0
    others_gpu_ms: int = 0

    @property
    def num_jobs(self) -> int:
        """Jobs of anybody."""
        return self.num_own + self.num_others


class Lineup:
    """Who stands before `job`, whether it is submitted or not, in a state whose lines are full."""

    def __init__(self, state: State, job: JobView, now_ms: int) -> None:
        self._state, self._job = state, job
        known = estimate(job, measure_size(job.shape), now_ms, state.policy)
        place = (-job.priority, known.key, job.sequence, job.job_id)
        self._rank = rank_waiting(place, job, state.tenants)
        self._parts = [
            (line, self._count(line)) for line in state.lines.by_pool.get(job.pool, {}).values()
        ]

    def count(self) -> int:
        """Return how many jobs go first."""
        # The job itself does not stand before itself, but as it is it may before what it could be.
        return sum(count for _, count in self._parts) - self._has_itself()

    def has(self, entry: Entry) -> bool:
        """Whether a job that waits goes first."""
        return rank_entry(entry) < self._rank

    def describe(self) -> Ahead:
        """Return them as the job's own project may see them."""
        named: list[tuple[Rank, str]] = []
        num, gpu_ms = [0, 0], [0, 0]
        for line, count in self._parts:
            is_own = line.project == self._job.project
            for at in range(count):
                entry = self._state.jobs[line.places[at][3]]
                if entry.job_id == self._job.job_id:
                    continue
                num[is_own] += 1
                gpu_ms[is_own] += entry.view.shape.num_gpus * entry.estimate.wall_ms
                if is_own and at < _NAMED_MAX:
                    named.append((rank_entry(entry), entry.job_id))
        return Ahead(
            own_ids=tuple(job_id for _, job_id in heapq.nsmallest(_NAMED_MAX, named)),
            num_own=num[True],
            own_gpu_ms=gpu_ms[True],
            num_others=num[False],
            others_gpu_ms=gpu_ms[False],
        )

    def find_highest_priority(self) -> int | None:
        """Return the highest priority before the job, None when nobody is."""
        firsts = [-line.places[0][0] for line, count in self._parts if count]
        return max(firsts, default=None)

    def pick(self) -> list[JobView]:
        """Return who decides when the job starts: who holds or is given places, who goes first."""
        state, job = self._state, self._job
        holding = [
            view
            for entry in state.jobs.values()
            for view in (entry.view,)
            if (view.placement is not None or view.claim is not None)
            and view.pool == job.pool
            and view.job_id != job.job_id
        ]
        return [*holding, *(entry.view for entry in self._iter()), job]

    def _iter(self) -> Iterator[Entry]:
        for line, count in self._parts:
            for place in line.places[:count]:
                if place[3] != self._job.job_id:
                    yield self._state.jobs[place[3]]

    def _has_itself(self) -> bool:
        entry = self._state.jobs.get(self._job.job_id)
        line = None if entry is None else entry.line
        if entry is None or line is None:
            return False
        return any(
            line is part and entry.place in line.places[:count] for part, count in self._parts
        )

    def _count(self, line: Line) -> int:
        rank, first = self._rank, line.places[0]
        head = rank_in_line(line, first)
        if head[0] != rank[0]:
            return len(line.places) if head[0] < rank[0] else 0
        if head[1] == first[0]:
            # All pay the same, so the places themselves can be compared.
            bound = (rank[1], rank[2] - (head[2] - first[1]), rank[3], rank[4])
            return bisect_left(line.places, bound)
        return bisect_left(  # some ask for more priority than their quota allows
            line.places,
            rank,
            key=lambda place: rank_in_line(line, place),
        )
