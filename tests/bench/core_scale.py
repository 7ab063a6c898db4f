"""A hundred thousand queued jobs on ten thousand GPUs: what a pass of the core costs.

The core alone, in this process: quotas, fair share, guarantees and reasons are on, checks of the
invariants off. In the steady state each pass sees one job end or one job come, the queue keeps its
length, and what the pass decides is acknowledged in the next one. The same with a tenth of the
queue is beside it.

The first pass leaves a hundred thousand reasons to tell, of which each pass tells a portion. Passes
are measured from when all are told: until then, some 400 passes, each takes 10 ms more.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from scheduler.core.cluster import (
    ClusterView,
    JobView,
    NodeView,
    QueueView,
    QuotaView,
    Shape,
    UsageView,
)
from scheduler.core.decisions import Admit, Decision, Explain, Hold, Keep, Preempt, Reserve, Start
from scheduler.core.deltas import Delta, JobGone, JobSeen, Observed
from scheduler.core.policy import HOUR_MS
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources
from scheduler.core.state import State
from scheduler.core.states import JobState
from scheduler.core.step import step
from tests.bench.bench import Bench, wait_for_quiet
from tests.bench.figures import Figure, Series, Target

NAME = "core_scale"
_QUEUED, _FEW_QUEUED = 100_000, 10_000
_NODES, _GPUS = 1250, 8
_PROJECTS, _USERS = 20, 5
_NOW_MS = 1_700_000_000_000
_SHAPES = tuple(
    Shape(num_workers=workers, per_worker=Resources(num_gpus=gpus, cpu_milli=4000 * gpus))
    for workers, gpus in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (8, 8), (16, 8))
)
_WEIGHTS = (50, 15, 12, 12, 5, 3, 2, 1)
_GRACE_MS = 30_000


def measure(bench: Bench) -> list[Figure]:
    """Return rebuild, median and tail of a pass, and what ten times the queue costs; 60 s."""
    passes = bench.count(3000, 300)
    cold_s: list[float] = []
    p50_ms: list[float] = []
    p99_ms: list[float] = []
    few_ms: list[float] = []
    mean_ms: list[float] = []
    few_mean_ms: list[float] = []
    for seed in range(bench.count(3, 1)):
        wait_for_quiet()
        cluster = _Cluster(_QUEUED, seed)
        cold_s.append(cluster.start_cold())
        took_ms = cluster.run_passes(passes)
        few = _Cluster(_FEW_QUEUED, seed)
        few.start_cold()
        few_took_ms = few.run_passes(passes)
        p50_ms.append(statistics.median(took_ms))
        p99_ms.append(_percentile(took_ms, 99))
        few_ms.append(statistics.median(few_took_ms))
        mean_ms.append(statistics.mean(took_ms))
        few_mean_ms.append(statistics.mean(few_took_ms))
        bench.say(
            f"cold {cold_s[-1]:.2f} s, pass p50 {p50_ms[-1]:.3f} ms, p99 {p99_ms[-1]:.2f} ms, "
            f"mean {mean_ms[-1]:.3f} ms; with a tenth p50 {few_ms[-1]:.3f} ms, "
            f"mean {few_mean_ms[-1]:.3f} ms; {cluster.describe()}"
        )
    return [
        Figure(
            name="core: rebuild and first pass, 100,000 queued",
            unit="s",
            values=Series(tuple(cold_s)),
            target=Target(of="figure", bound="at most", limit=3.0),
        ),
        Figure(
            name="core: one pass, median",
            unit="ms",
            values=Series(tuple(p50_ms)),
            target=Target(of="figure", bound="at most", limit=5.0),
            details={"passes": passes},
        ),
        Figure(
            name="core: one pass, p99",
            unit="ms",
            values=Series(tuple(p99_ms)),
            target=Target(of="figure", bound="at most", limit=50.0),
        ),
        Figure(
            name="core: mean pass, ten times the queue",
            unit="ms",
            values=Series(tuple(mean_ms)),
            baseline=Series(tuple(few_mean_ms)),
            baseline_name="10,000 queued",
            target=Target(of="ratio", bound="at most", limit=1.5),
            details={"median_ms": p50_ms, "median_few_ms": few_ms},
        ),
    ]


class _Cluster:
    """Rows, and a core that is shown what becomes of them."""

    def __init__(self, num_queued: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._num_queued = num_queued
        self._now_ms = _NOW_MS
        self._sequence = 0
        self._state = State()
        self._unseen: list[Delta] = []
        self._jobs: dict[str, JobView] = {}
        self._running: list[str] = []
        self._at: dict[str, int] = {}
        self._stopping: list[str] = []
        self._num_decided: dict[str, int] = {}

    def start_cold(self) -> float:
        """Build the state and make the first pass; return the seconds."""
        view = ClusterView(
            nodes=tuple(_make_nodes()),
            jobs=tuple(self._submit() for _ in range(self._num_queued + _NODES * _GPUS // 3)),
            quotas=tuple(_make_quotas()),
            usage=tuple(_make_usage(self._chance)),
            queues=(QueueView(name="default", pool="default"),),
        )
        gc.collect()
        started = time.perf_counter()
        self._state, plan = step(self._state, [Observed(view=view)], self._now_ms)
        took_s = time.perf_counter() - started
        self._apply(plan.decisions)
        return took_s

    def run_passes(self, count: int) -> list[float]:
        """Make so many passes, each after one event; return how long each took, in ms."""
        for _ in range(200):
            self._pass()
        while self._state.untold:  # what the first pass left to say is not the steady state
            self._pass()
        return [self._pass() for _ in range(count)]

    def describe(self) -> str:
        """Return what was decided, by kind."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self._num_decided.items()))

    def _pass(self) -> float:
        # Ten thousand GPUs with jobs of hours: something ends about once a second.
        self._now_ms += self._chance.randrange(200, 2000)
        self._let_something_happen()
        deltas, self._unseen = self._unseen, []
        started = time.perf_counter()
        self._state, plan = step(self._state, deltas, self._now_ms)
        took_ms = 1e3 * (time.perf_counter() - started)
        self._apply(plan.decisions)
        return took_ms

    def _let_something_happen(self) -> None:
        if self._stopping:
            self._stop(self._stopping.pop())
        elif len(self._jobs) - len(self._running) < self._num_queued:
            self._unseen.append(JobSeen(job=self._submit()))
        else:
            self._end(self._running[self._chance.randrange(len(self._running))])

    def _submit(self) -> JobView:
        chance = self._chance
        number = self._sequence
        self._sequence += 1
        shape = chance.choices(_SHAPES, _WEIGHTS)[0]
        project = min(int(chance.expovariate(0.25)), _PROJECTS - 1)
        # As the rows give them: equal shapes are not the same object.
        view = JobView(
            job_id=f"job_{number:07d}",
            version=1,
            state=JobState.QUEUED,
            sequence=number,
            submit_ms=self._now_ms - chance.randrange(HOUR_MS),
            waiting_since_ms=self._now_ms,
            project=f"project-{project:02d}",
            user=f"user-{project:02d}-{chance.randrange(_USERS)}",
            priority=chance.choices((50, 80), (95, 5))[0],
            shape=replace(shape),
            limit_ms=None
            if chance.random() < 0.3
            else 60_000 * chance.choice((10, 30, 60, 240, 720, 1440, 4320)),
            is_preemptible=chance.random() < 0.9,
            grace_ms=_GRACE_MS,
        )
        self._jobs[view.job_id] = view
        return view

    def _apply(self, decisions: tuple[Decision, ...]) -> None:
        touched: dict[str, None] = {}
        for decision in decisions:
            kind = type(decision).__name__
            self._num_decided[kind] = self._num_decided.get(kind, 0) + 1
            row = self._jobs[decision.job_id]
            assert row.version == decision.version, "a stale decision"
            touched[decision.job_id] = None
            self._jobs[decision.job_id] = self._change(row, decision)
        self._unseen += [JobSeen(job=self._jobs[job_id]) for job_id in touched]

    def _change(self, row: JobView, decision: Decision) -> JobView:
        version = row.version + 1
        match decision:
            case Start():
                self._at[row.job_id] = len(self._running)
                self._running.append(row.job_id)
                return replace(
                    row,
                    version=version,
                    state=JobState.RUNNING,
                    reason=Reason.TRAINING,
                    message="",
                    placement=decision.placement,
                    claim=None,
                    reservation=None,
                    started_ms=self._now_ms,
                )
            case Preempt():
                self._drop_running(row.job_id)
                self._stopping.append(row.job_id)
                return replace(
                    row,
                    version=version,
                    state=JobState.STOPPING,
                    reason=decision.reason,
                    stop_reason=decision.reason,
                )
            case Keep():
                return replace(row, version=version, claim=decision.claim)
            case Reserve():
                return replace(row, version=version, reservation=decision.reservation)
            case Explain() | Hold() | Admit():
                return replace(
                    row, version=version, reason=decision.reason, message=decision.message
                )

    def _stop(self, job_id: str) -> None:
        row = self._jobs[job_id]
        self._jobs[job_id] = view = replace(
            row,
            version=row.version + 1,
            state=JobState.QUEUED,
            reason=Reason.PREEMPTED,
            placement=None,
            stop_reason=None,
            served_ms=row.served_ms + self._now_ms - row.started_ms,
            evictions=row.evictions + 1,
            waiting_since_ms=self._now_ms,
        )
        self._unseen.append(JobSeen(job=view))

    def _end(self, job_id: str) -> None:
        self._drop_running(job_id)
        row = self._jobs.pop(job_id)
        self._unseen.append(JobGone(job_id=job_id, version=row.version + 1))

    def _drop_running(self, job_id: str) -> None:
        at, last = self._at.pop(job_id), self._running.pop()
        if last != job_id:
            self._running[at], self._at[last] = last, at


def _make_nodes() -> Iterator[NodeView]:
    for number in range(_NODES):
        yield NodeView(
            node_id=f"node-{number:04d}",
            pool="default",
            rack=f"rack-{number // 16:02d}",
            gpu_model="H100",
            gpu_memory_mib=81_920,
            capacity=Resources(num_gpus=_GPUS, cpu_milli=96_000, memory_mib=1 << 20),
            gpu_indices=tuple(range(_GPUS)),
        )


def _make_quotas() -> Iterator[QuotaView]:
    for number in range(_PROJECTS):
        project = f"project-{number:02d}"
        yield QuotaView(
            project=project,
            weight=1 + number % 3,
            guaranteed_gpus=400 if number % 4 == 0 else 0,
            limit_gpus=3000 if number % 2 else None,
        )
        yield QuotaView(project=project, user=f"user-{number:02d}-0", limit_gpus=600)


def _make_usage(chance: random.Random) -> Iterator[UsageView]:
    for number in range(_PROJECTS):
        for user in range(_USERS):
            yield UsageView(
                project=f"project-{number:02d}",
                user=f"user-{number:02d}-{user}",
                gpu_ms=chance.randrange(20_000) * HOUR_MS,
                as_of_ms=_NOW_MS - HOUR_MS,
            )


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
