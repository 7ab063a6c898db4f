"""When a waiting job will start: the same core, run forward on a copy. Pure but for what it learns.

The copy has every job's remaining time as ended jobs suggest it, and goes on as the service would:
ends, starts, room made for others. What is not known is said by the interval around the point that
comes out (`calibration`), or by giving none.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.core.cluster import ClusterView, JobView
from scheduler.core.decisions import Decision, Preempt, Start
from scheduler.core.deltas import Delta, JobGone, JobSeen, Observed
from scheduler.core.durations import Durations
from scheduler.core.estimates import estimate, measure_size
from scheduler.core.passing import Pass
from scheduler.core.ranks import rank_entry, rank_waiting
from scheduler.core.state import State
from scheduler.core.states import JobState

_MEDIAN_PPM = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How far a forecast looks.

    Attributes:
        ends_max: how many jobs may end in the copy before it gives up.
        passes_max: how many passes it makes at most.
        is_over: whether whoever asks has waited long enough; None: they wait as long as it takes.
    """

    ends_max: int = 2_000
    passes_max: int = 6_000
    is_over: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """No forecast, and why."""

    why: str


def find_start(
    state: State,
    jobs: Sequence[JobView],
    job_id: str,
    now_ms: int,
    *,
    budget: Budget | None = None,
    part_ppm: int = _MEDIAN_PPM,
    until_ms: int | None = None,
) -> int | Unknown:
    """Return when `job_id` starts if nothing else is submitted, in ms since the epoch.

    Args:
        state: what the scheduler knows; it is not changed.
        jobs: those of its jobs that matter (`pick_relevant`), and `job_id` as it would be.
        part_ppm: the part of comparable jobs that has ended when a job of the copy ends.
        until_ms: a later start is of no interest; None: any is.
    """
    return _Run(state, jobs, now_ms, part_ppm).find_start(job_id, budget or Budget(), until_ms)


def pick_relevant(
    state: State, job: JobView, now_ms: int, ahead_max: int
) -> list[JobView] | Unknown:
    """Return who decides when `job` starts: all who hold places, and who waits before it."""
    size = measure_size(job.shape)
    known = estimate(job, size, now_ms, state.policy)
    place = (-job.priority, known.key, job.sequence, job.job_id)
    rank = rank_waiting(place, job, state.tenants)
    picked, num_ahead = [], 0
    for entry in state.jobs.values():
        view = entry.view
        if view.pool != job.pool or view.job_id == job.job_id:
            continue
        if view.placement is None and view.claim is None:
            if rank_entry(entry) > rank or view.is_held or view.waits_for:
                continue
            num_ahead += 1
            if num_ahead > ahead_max:
                return Unknown(why=f"more than {ahead_max} jobs wait before it")
        picked.append(view)
    return [*picked, job]


class _Run:
    """The copy and its clock."""

    def __init__(self, known: State, jobs: Sequence[JobView], now_ms: int, part_ppm: int) -> None:
        self._now_ms = now_ms
        self._state = State(known.policy, explains=False)
        self._state.tenants.freeze(known.tenants)
        nodes = tuple(node.view for node in known.nodes.by_id.values())
        view = ClusterView(nodes=nodes, jobs=tuple(jobs), quotas=known.quotas)
        self._state.apply(Observed(view=view), now_ms)
        self._ends: list[tuple[int, str]] = []
        self._left_ms: dict[str, int] = {}
        for job in jobs:
            left_ms = self._find_left(job, known.durations, part_ppm)
            self._left_ms[job.job_id] = left_ms
            if job.placement is not None:
                heapq.heappush(self._ends, (now_ms + left_ms, job.job_id))

    def find_start(self, job_id: str, budget: Budget, until_ms: int | None) -> int | Unknown:
        wakeup_ms = self._settle([])
        num_ended = 0
        for _ in range(budget.passes_max):
            entry = self._state.jobs.get(job_id)
            if entry is None or entry.view.placement is not None:
                return self._now_ms
            instants = [self._ends[0][0]] if self._ends else []
            if wakeup_ms is not None:
                instants.append(wakeup_ms)
            if not instants:
                return Unknown(why="nothing that is known of would let it start")
            self._now_ms = max(self._now_ms, min(instants))
            if until_ms is not None and self._now_ms > until_ms:
                return Unknown(why="it starts later than asked for")
            if budget.is_over is not None and budget.is_over():
                return Unknown(why="it could not be worked out in time")
            deltas = self._end_due()
            num_ended += len(deltas)
            if num_ended > budget.ends_max:
                break
            wakeup_ms = self._settle(deltas)
        return Unknown(why=f"more than {num_ended} jobs end before it starts")

    def _find_left(self, job: JobView, durations: Durations, part_ppm: int) -> int:
        ran_ms = 0 if job.placement is None else max(0, self._now_ms - job.started_ms)
        if job.remaining_ms is not None:
            return max(1, job.remaining_ms - max(0, self._now_ms - job.measured_ms))
        if job.stop_reason is not None:
            return job.grace_ms
        had_ms = job.served_ms + ran_ms
        if job.history_ms is not None and had_ms < job.history_ms:
            return job.history_ms - had_ms
        return durations.find_remaining(job.project, job.limit_ms, had_ms, part_ppm)

    def _end_due(self) -> list[Delta]:
        deltas: list[Delta] = []
        while self._ends and self._ends[0][0] <= self._now_ms:
            job_id = heapq.heappop(self._ends)[1]
            deltas.append(JobGone(job_id=job_id, version=self._state.jobs[job_id].view.version))
        return deltas

    def _settle(self, deltas: list[Delta]) -> int | None:
        """Pass after pass at this instant, until nobody moves; return the next wake-up."""
        while True:
            for delta in deltas:
                self._state.apply(delta, self._now_ms)
            plan = Pass(self._state, self._now_ms).run()
            deltas = [seen for one in plan.decisions for seen in self._follow(one)]
            if not deltas:
                return plan.next_wakeup_ms

    def _follow(self, decision: Decision) -> list[Delta]:
        if isinstance(decision, Start):
            end_ms = self._now_ms + self._left_ms[decision.job_id]
            heapq.heappush(self._ends, (end_ms, decision.job_id))
            return []
        if not isinstance(decision, Preempt):
            return []
        view = self._state.jobs[decision.job_id].view
        ran_ms = self._now_ms - view.started_ms
        policy = self._state.policy
        left_ms = self._left_ms[view.job_id] - ran_ms
        self._left_ms[view.job_id] = max(1, left_ms) + policy.restart_ms
        self._ends = [one for one in self._ends if one[1] != view.job_id]
        heapq.heapify(self._ends)
        return [JobSeen(job=_stop(view, self._now_ms))]


def _stop(view: JobView, now_ms: int) -> JobView:
    return dataclasses.replace(
        view,
        version=view.version + 1,
        state=JobState.QUEUED,
        placement=None,
        started_ms=0,
        stop_reason=None,
        remaining_ms=None,
        served_ms=view.served_ms + max(0, now_ms - view.started_ms),
        evictions=view.evictions + 1,
        waiting_since_ms=now_ms,
    )
