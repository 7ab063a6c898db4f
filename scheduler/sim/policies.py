"""The policies by name, each as one function from a trace to what became of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scheduler.core.decisions import Plan
from scheduler.core.deltas import Delta
from scheduler.core.state import State
from scheduler.core.step import step
from scheduler.sim.baselines.easy import Easy
from scheduler.sim.baselines.fifo import Fifo
from scheduler.sim.baselines.las import TwoQueueLas
from scheduler.sim.baselines.replay import Baseline, replay_baseline
from scheduler.sim.baselines.srtf import Srtf
from scheduler.sim.driver import Forecaster, Options, replay_core
from scheduler.sim.outcome import Outcome
from scheduler.sim.trace import Cluster, TraceJob

CORE_POLICY = "trainmaster"
BASELINES: dict[str, Callable[[], Baseline]] = {
    "fifo": Fifo,
    "easy": Easy,
    "srtf": Srtf,
    "las": TwoQueueLas,
}
POLICIES = (CORE_POLICY, *BASELINES)
FORECAST_JOBS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a policy is replayed under.

    Attributes:
        uses_limits: whether policies are told the declared limits.
        resume_ms: what each start but a job's first costs it.
        seed: of the choice of jobs whose start is forecast.
    """

    cluster: Cluster
    uses_limits: bool = True
    resume_ms: int = 60_000
    seed: int = 1


def replay(
    policy: str,
    jobs: Sequence[TraceJob],
    setting: Setting,
    *,
    forecast: Forecaster[State] | None = None,
    observe: Callable[[int, Sequence[Delta], Plan], None] | None = None,
    progress: Callable[[int, int], None] = lambda ended, total: None,
) -> Outcome:
    """Replay a trace under the policy of that name, one of `POLICIES`."""
    if policy == CORE_POLICY:
        options = Options(
            uses_limits=setting.uses_limits,
            resume_ms=setting.resume_ms,
            forecast_jobs=choose_jobs(len(jobs), setting.seed),
        )
        return replay_core(
            jobs,
            setting.cluster,
            step=step,
            state=State(explains=False),
            options=options,
            forecast=forecast,
            observe=observe,
            progress=progress,
        )
    if not setting.uses_limits:
        jobs = [replace(job, limit_ms=None) for job in jobs]
    return replay_baseline(
        jobs, setting.cluster, BASELINES[policy](), resume_ms=setting.resume_ms, progress=progress
    )


def choose_jobs(num_jobs: int, seed: int) -> frozenset[int]:
    """Return which jobs of a trace are forecast: as many as `FORECAST_JOBS`, the same each time."""
    chosen = random.Random(seed).sample(range(num_jobs), min(FORECAST_JOBS, num_jobs))
    return frozenset(chosen)
