"""Drives `scheduler.core` through a trace in virtual time, as the service does in real time.

All that happens at one instant is one batch of deltas. The core decides, its decisions are applied
to the rows, and what came of them goes back to it, until it neither starts nor preempts: then the
clock moves on to the next submit, end, stop or wake-up. The core is not told when a job will end,
how far it is or how long it takes to resume.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from scheduler.core.cluster import ClusterView, NodeView, Placement, Shape
from scheduler.core.decisions import Plan, Preempt, Start
from scheduler.core.deltas import Delta, JobGone, JobSeen, Observed
from scheduler.core.resources import Resources
from scheduler.core.states import JobState
from scheduler.sim.outcome import Forecast, Outcome, Run
from scheduler.sim.rows import JobRow
from scheduler.sim.slots import Place, Slots
from scheduler.sim.trace import Cluster, TraceJob

POOL = "default"
# Enough for every job there is to start and be preempted in turn; a policy that needs more at one
# instant goes in circles.
PASSES_PER_INSTANT_MAX = 1_000

State = TypeVar("State")
Step = Callable[[State, Sequence[Delta], int], tuple[State, Plan]]
Forecaster = Callable[[State, str, int], tuple[int, int] | None]
"""Given a state, a job and the instant; returns p10 and p90 of its start, or None."""


class BadPlan(RuntimeError):
    """The policy decided what cannot be done. A mistake of the policy, not of the trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a replay may vary.

    Attributes:
        uses_limits: whether the core is told the declared limits.
        resume_ms: how long a job holds its GPUs at each start but its first before it goes on.
        stop_delay_ms: how long a job goes on after it was asked to stop, by its id and the number
            of the eviction, counted from 1.
        forecast_jobs: indices in the trace of the jobs whose start is forecast at their submit.
    """

    uses_limits: bool = True
    resume_ms: int = 60_000
    stop_delay_ms: Callable[[str, int], int] = lambda job_id, eviction: 0
    forecast_jobs: frozenset[int] = frozenset()


def replay_core(
    jobs: Sequence[TraceJob],
    cluster: Cluster,
    *,
    step: Step[State],
    state: State,
    options: Options | None = None,
    forecast: Forecaster[State] | None = None,
    observe: Callable[[int, Sequence[Delta], Plan], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Replay jobs, which are in submit order and fit on the cluster, until all have ended.

    Args:
        step: the core; it may use up the state it is given.
        state: an empty one.
        observe: is told of every pass: the instant, what the core saw, what it decided.
        progress: is told how many of how many jobs have ended.

    Raises:
        BadPlan: the core gave GPUs away twice, tore a gang, went in circles or started nothing.
    """
    replay = _Replay(jobs, cluster, step, state, options or Options(), forecast, observe)
    while replay.num_ended < len(jobs):
        num_ended = replay.num_ended
        replay.advance()
        if progress is not None and replay.num_ended != num_ended:
            progress(replay.num_ended, len(jobs))
    return replay.outcome


class _Replay(Generic[State]):
    def __init__(
        self,
        jobs: Sequence[TraceJob],
        cluster: Cluster,
        step: Step[State],
        state: State,
        options: Options,
        forecast: Forecaster[State] | None,
        observe: Callable[[int, Sequence[Delta], Plan], None] | None,
    ) -> None:
        self.outcome = Outcome(
            jobs=tuple(jobs), cluster=cluster, forecasts=None if forecast is None else []
        )
        self.num_ended = 0
        self._step, self._state, self._options = step, state, options
        self._forecast, self._observe = forecast, observe
        self._now_ms = 0
        self._num_submitted = 0
        self._wakeup_ms: int | None = None
        self._timers: list[tuple[int, int, int]] = []  # instant, 0 end or 1 stop, index
        self._rows: dict[str, JobRow] = {}
        self._rows_by_index: dict[int, JobRow] = {}
        self._slots = Slots(cluster)
        nodes = _make_nodes(cluster)
        self._node_numbers = {node.node_id: number for number, node in enumerate(nodes)}
        self._unseen: list[Delta] = [Observed(view=ClusterView(nodes=nodes))]

    def advance(self) -> None:
        """Go to the next instant at which something happens, and settle it."""
        self._now_ms = self._find_next_instant()
        self._fire_timers()
        first_new = self._num_submitted
        self._submit_due()
        self._settle()
        if self._forecast is not None:
            for index in range(first_new, self._num_submitted):
                if index in self._options.forecast_jobs:
                    self._forecast_start(index, self._forecast)

    def _find_next_instant(self) -> int:
        instants = [] if self._wakeup_ms is None else [self._wakeup_ms]
        if self._timers:
            instants.append(self._timers[0][0])
        if self._num_submitted < len(self.outcome.jobs):
            instants.append(self.outcome.jobs[self._num_submitted].submit_ms)
        if not instants:
            row = next(iter(self._rows.values()))
            raise BadPlan(
                f"nothing will happen any more, and {len(self._rows)} jobs wait: "
                f"{row.job_id} for {row.reason or 'no reason'}, {row.message or 'without a word'}"
            )
        return min(instants)

    def _fire_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self._now_ms:
            at_ms, is_stop, index = heapq.heappop(timers)
            row = self._rows_by_index.get(index)
            if row is None:
                continue
            if is_stop and row.stop_at_ms == at_ms:
                self._stop(row)
                self._unseen.append(JobSeen(job=row.render_view()))
            elif not is_stop and row.end_ms == at_ms:
                self._end(row)

    def _submit_due(self) -> None:
        jobs = self.outcome.jobs
        while self._num_submitted < len(jobs):
            index, job = self._num_submitted, jobs[self._num_submitted]
            if job.submit_ms > self._now_ms:
                return
            limit_ms = job.limit_ms if self._options.uses_limits else None
            row = JobRow(index, job, _shape_of(job.gpus), limit_ms=limit_ms)
            self._rows[row.job_id] = self._rows_by_index[index] = row
            self._unseen.append(JobSeen(job=row.render_view()))
            self._num_submitted += 1

    def _settle(self) -> None:
        for _ in range(PASSES_PER_INSTANT_MAX):
            deltas, self._unseen = self._unseen, []
            self._state, plan = self._step(self._state, deltas, self._now_ms)
            self.outcome.num_passes += 1
            if self._observe is not None:
                self._observe(self._now_ms, deltas, plan)
            wakeup_ms = plan.next_wakeup_ms
            if wakeup_ms is not None and wakeup_ms <= self._now_ms:
                raise BadPlan(f"at {self._now_ms} ms it asks to be woken at {wakeup_ms} ms")
            self._wakeup_ms = wakeup_ms
            if not self._apply(plan):
                return
        raise BadPlan(
            f"at {self._now_ms} ms it still starts and preempts after "
            f"{PASSES_PER_INSTANT_MAX} passes"
        )

    def _apply(self, plan: Plan) -> bool:
        """Apply what is not stale; return whether a job started or was asked to stop.

        What came of it is seen in the next pass: at once if anybody moved, else with the next
        event, as in the service, where it rings no bell.
        """
        has_moved = False
        touched: dict[str, JobRow] = {}
        stopping: list[JobRow] = []
        for decision in plan.decisions:
            row = self._rows.get(decision.job_id)
            if row is None or row.version != decision.version:
                self.outcome.num_stale += 1
                continue
            touched[row.job_id] = row
            if isinstance(decision, Start):
                self._start(row, decision.placement)
                has_moved = True
            elif isinstance(decision, Preempt):
                self._preempt(row, decision.reason)
                stopping.append(row)
                has_moved = True
            else:
                row.apply(decision)
        # After the whole plan: a decision on a job that stops may follow the one that stops it.
        for row in stopping:
            if row.stop_at_ms == self._now_ms:
                self._stop(row)
        self._unseen.extend([JobSeen(job=row.render_view()) for row in touched.values()])
        return has_moved

    def _start(self, row: JobRow, placement: Placement) -> None:
        if row.placement is not None:
            raise BadPlan(f"{row.job_id} has its places and is started again")
        place = self._resolve(row, placement)
        self._slots.take(place)
        resume_ms = self._options.resume_ms if row.evictions else 0
        row.start(placement, place, now_ms=self._now_ms, resume_ms=resume_ms)
        heapq.heappush(self._timers, (row.end_ms, 0, row.index))

    def _preempt(self, row: JobRow, reason: str) -> None:
        if row.placement is None or row.state is JobState.STOPPING:
            raise BadPlan(f"{row.job_id} is {row.state} and cannot be preempted")
        delay_ms = self._options.stop_delay_ms(row.job_id, row.evictions + 1)
        row.ask_to_stop(reason, stop_at_ms=self._now_ms + delay_ms)
        if delay_ms:
            heapq.heappush(self._timers, (row.stop_at_ms, 1, row.index))

    def _stop(self, row: JobRow) -> None:
        self._give_back(row, is_last=False)
        row.stop(self._now_ms)

    def _end(self, row: JobRow) -> None:
        self._give_back(row, is_last=True)
        self._unseen.append(JobGone(job_id=row.job_id, version=row.version + 1))
        del self._rows[row.job_id], self._rows_by_index[row.index]
        self.num_ended += 1

    def _give_back(self, row: JobRow, *, is_last: bool) -> None:
        self._slots.release(row.place)
        run = Run(row.index, row.started_ms, self._now_ms, row.resume_ms, row.place, is_last)
        self.outcome.runs.append(run)

    def _forecast_start(self, index: int, forecast: Forecaster[State]) -> None:
        row = self._rows_by_index[index]
        if row.placement is not None or row.evictions or self.outcome.forecasts is None:
            return
        interval_ms = forecast(self._state, row.job_id, self._now_ms)
        self.outcome.forecasts.append(Forecast(job=index, interval_ms=interval_ms))

    def _resolve(self, row: JobRow, placement: Placement) -> Place:
        """Return the GPUs of a placement, having looked that they are free and enough."""
        masks: dict[int, int] = {}
        for share in placement.shares:
            number = self._node_numbers.get(share.node_id)
            if number is None or number in masks:
                raise BadPlan(f"{row.job_id} is placed on {share.node_id}, unknown or named twice")
            if len(set(share.gpu_indices)) != share.num_workers:
                raise BadPlan(
                    f"{row.job_id} has {share.num_workers} workers on {share.node_id} "
                    f"and GPUs {share.gpu_indices}: each worker needs its own"
                )
            masks[number] = sum(1 << gpu for gpu in share.gpu_indices)
        place = tuple(masks.items())
        if sum(share.num_workers for share in placement.shares) != row.shape.num_workers:
            raise BadPlan(f"{row.job_id} is a gang of {row.shape.num_workers} and starts in part")
        if not self._slots.holds(place):
            raise BadPlan(f"{row.job_id} is given GPUs that another job holds: {placement.shares}")
        return place


def _make_nodes(cluster: Cluster) -> tuple[NodeView, ...]:
    return tuple(
        NodeView(
            node_id=f"n{number:03d}",
            pool=POOL,
            capacity=Resources(
                num_gpus=cluster.gpus_per_node, cpu_milli=1_000_000, memory_mib=1 << 24
            ),
            gpu_indices=tuple(range(cluster.gpus_per_node)),
        )
        for number in range(cluster.num_nodes)
    )


@functools.cache
def _shape_of(gpus: int) -> Shape:
    return Shape(num_workers=gpus, per_worker=Resources(num_gpus=1))
