"""The figures of a replay. Pure; the meaning of each is in docs/simulator.md.

Sums are of whole milliseconds, so that they do not depend on the order of the jobs; a figure
becomes a float at its last step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.sim.outcome import Outcome

TENANT_JOBS_MIN = 20
SLOWDOWN_BOUND_MS = 10_000
NOTICED_WAIT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One row of the table; `eta_*` are None when nobody forecast, `jain` without tenants."""

    jobs: int
    avg_jct_s: float
    p99_jct_s: float
    avg_queue_s: float
    makespan_s: float
    gpu_utilization: float
    evictions_per_job: float
    evictions_max: int
    wasted_gpu_fraction: float
    jain: float | None
    eta_coverage: float | None
    eta_given_fraction: float | None
    wall_s: float


def measure(outcome: Outcome, *, wall_s: float) -> Metrics:
    """Return the figures of a replay in which every job ended."""
    jobs = outcome.jobs
    first_starts, ends, evictions = _times_and_evictions(outcome)
    jcts_ms = [end - job.submit_ms for job, end in zip(jobs, ends, strict=True)]
    makespan_ms = max(ends) - min(job.submit_ms for job in jobs)
    service_ms = sum(job.gpus * job.duration_ms for job in jobs)
    held_ms = sum(run.num_gpus * (run.stop_ms - run.start_ms) for run in outcome.runs)
    coverage, given_fraction = _judge_forecasts(outcome, first_starts)
    return Metrics(
        jobs=len(jobs),
        avg_jct_s=round(sum(jcts_ms) / len(jobs) / 1000, 3),
        p99_jct_s=percentile(jcts_ms, 99) / 1000,
        avg_queue_s=round(
            (sum(jcts_ms) - sum(job.duration_ms for job in jobs)) / len(jobs) / 1000, 3
        ),
        makespan_s=makespan_ms / 1000,
        gpu_utilization=round(service_ms / (outcome.cluster.num_gpus * makespan_ms), 6),
        evictions_per_job=round(sum(evictions) / len(jobs), 6),
        evictions_max=max(evictions),
        wasted_gpu_fraction=round((held_ms - service_ms) / held_ms, 6),
        jain=_jain_over_tenants(outcome, jcts_ms),
        eta_coverage=coverage,
        eta_given_fraction=given_fraction,
        wall_s=round(wall_s, 3),
    )


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


def jain_index(values: Sequence[float]) -> float:
    """Return Jain's index of values > 0: 1 when all are equal, 1/n when one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def _times_and_evictions(outcome: Outcome) -> tuple[list[int], list[int], list[int]]:
    """Return first starts and ends in milliseconds, and evictions, of each job of the trace."""
    first_starts = [-1] * len(outcome.jobs)
    ends = [-1] * len(outcome.jobs)
    evictions = [0] * len(outcome.jobs)
    for run in outcome.runs:
        if first_starts[run.job] < 0:
            first_starts[run.job] = run.start_ms
        if run.is_last:
            ends[run.job] = run.stop_ms
        else:
            evictions[run.job] += 1
    return first_starts, ends, evictions


def _jain_over_tenants(outcome: Outcome, jcts_ms: Sequence[int]) -> float | None:
    slowdowns: dict[str, list[float]] = defaultdict(list)
    for job, jct_ms in zip(outcome.jobs, jcts_ms, strict=True):
        slowdowns[job.vc].append(jct_ms / max(job.duration_ms, SLOWDOWN_BOUND_MS))
    means = [
        sum(of_tenant) / len(of_tenant)
        for of_tenant in slowdowns.values()
        if len(of_tenant) >= TENANT_JOBS_MIN
    ]
    return round(jain_index(means), 6) if means else None


def _judge_forecasts(
    outcome: Outcome, first_starts: Sequence[int]
) -> tuple[float | None, float | None]:
    """Return which part of the intervals held the start, and which part of the waits had one."""
    if outcome.forecasts is None:
        return None, None
    stated = [one for one in outcome.forecasts if one.interval_ms is not None]
    inside = sum(
        one.interval_ms[0] <= first_starts[one.job] <= one.interval_ms[1]
        for one in stated
        if one.interval_ms is not None
    )
    noticed = [
        one
        for one in outcome.forecasts
        if first_starts[one.job] - outcome.jobs[one.job].submit_ms > NOTICED_WAIT_MS
    ]
    given = sum(one.interval_ms is not None for one in noticed)
    return (
        round(inside / len(stated), 6) if stated else None,
        round(given / len(noticed), 6) if noticed else None,
    )
