"""Each figure is what the page says, on cases that can be checked by hand."""

import pytest

from scheduler.sim.metrics import jain_index, measure, percentile
from scheduler.sim.outcome import Forecast, Outcome, Run
from scheduler.sim.trace import TraceJob
from tests.sim.traces import cluster_of, job

CLUSTER = cluster_of(1, 4)
# One runs 0-100 s on 2 GPUs; the other waits till 50 s, is evicted at 80 s, and runs again from
# 100 s: 60 s to resume, then the 70 s it still needs.
JOBS = (job("a", 0, 2, 100), job("b", 10, 4, 100))
RUNS = [
    Run(1, 50_000, 80_000, 0, ((0, 0b1111),), False),
    Run(0, 0, 100_000, 0, ((0, 0b0011),), True),
    Run(1, 100_000, 230_000, 60_000, ((0, 0b1111),), True),
]


def test_the_figures_of_two_jobs_are_right() -> None:
    metrics = measure(Outcome(jobs=JOBS, cluster=CLUSTER, runs=list(RUNS)), wall_s=0.5)

    assert metrics.jobs == 2
    assert metrics.avg_jct_s == (100 + 220) / 2
    assert metrics.p99_jct_s == 220
    assert metrics.avg_queue_s == (0 + 120) / 2
    assert metrics.makespan_s == 230
    assert metrics.gpu_utilization == pytest.approx(600 / (4 * 230), abs=1e-6)
    assert metrics.evictions_per_job == 0.5
    assert metrics.evictions_max == 1
    assert metrics.wasted_gpu_fraction == pytest.approx(4 * 60 / (200 + 4 * 160), abs=1e-6)
    assert metrics.jain is None
    assert (metrics.eta_coverage, metrics.eta_given_fraction) == (None, None)
    assert metrics.wall_s == 0.5


def test_the_makespan_begins_with_the_first_submit() -> None:
    outcome = Outcome(
        jobs=(job("a", 1000, 1, 5),),
        cluster=CLUSTER,
        runs=[Run(0, 1_001_000, 1_006_000, 0, ((0, 1),), True)],
    )

    assert measure(outcome, wall_s=0).makespan_s == 6


@pytest.mark.parametrize(
    ("values", "percent", "want"),
    [
        pytest.param([5], 99, 5, id="of one value, that one"),
        pytest.param(range(1, 101), 99, 99, id="99 of 100 do not exceed the 99th"),
        pytest.param(range(1, 102), 99, 100, id="of 101 it takes the 100th"),
        pytest.param([3, 1, 2], 50, 2, id="the median of three"),
        pytest.param([4, 1, 3, 2], 50, 2, id="of an even number, the lower"),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[int], percent: int, want: int) -> None:
    assert percentile(values, percent) == want


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param([3.0, 3.0, 3.0], 1.0, id="equals"),
        pytest.param([1.0, 1e-9, 1e-9, 1e-9], 0.25, id="one of four has everything"),
        pytest.param([1.0, 3.0], 0.8, id="1 and 3: 16 / (2 x 10)"),
    ],
)
def test_jain_is_one_for_equals_and_one_nth_for_one(values: list[float], want: float) -> None:
    assert jain_index(values) == pytest.approx(want)


def test_jain_compares_the_mean_bounded_slowdown_of_tenants_with_twenty_jobs() -> None:
    # Slowdown 1 for red, (10 + 20) / 10 = 3 for blue: a job of 5 s counts as one of 10 s.
    # Green has nineteen jobs, and does not count.
    jobs: list[TraceJob] = []
    runs: list[Run] = []
    for vc, count, duration_ms, wait_ms in (
        ("red", 20, 10_000, 0),
        ("blue", 20, 5_000, 25_000),
        ("green", 19, 10_000, 990_000),
    ):
        for _ in range(count):
            index = len(jobs)
            jobs.append(job(f"{vc}{index}", 0, 1, duration_ms / 1000, vc=vc))
            runs.append(Run(index, wait_ms, wait_ms + duration_ms, 0, ((0, 1),), True))

    metrics = measure(Outcome(jobs=tuple(jobs), cluster=CLUSTER, runs=runs), wall_s=0)

    assert metrics.jain == pytest.approx((1 + 3) ** 2 / (2 * (1 + 9)))


@pytest.mark.parametrize(
    ("intervals", "coverage", "given"),
    [
        pytest.param({}, None, None, id="nobody was asked about"),
        pytest.param({1: (40, 60)}, 1.0, None, id="a wait of 40 s is not noticed"),
        pytest.param({0: (0, 0), 1: (51, 60)}, 0.5, None, id="one of two starts lies inside"),
        pytest.param({2: None}, None, 0.0, id="a noticed wait without an interval"),
        pytest.param({1: None, 2: (0, 999)}, 1.0, 1.0, id="what is not noticed needs none"),
    ],
)
def test_forecasts_are_judged_by_the_first_start(
    intervals: dict[int, tuple[int, int] | None], coverage: float | None, given: float | None
) -> None:
    forecasts = [
        Forecast(job=index, interval_ms=None if s is None else (s[0] * 1000, s[1] * 1000))
        for index, s in intervals.items()
    ]
    outcome = Outcome(
        jobs=(*JOBS, job("c", 0, 1, 1)),
        cluster=CLUSTER,
        runs=[*RUNS, Run(2, 230_000, 231_000, 0, ((0, 1),), True)],
        forecasts=forecasts,
    )

    metrics = measure(outcome, wall_s=0)

    assert (metrics.eta_coverage, metrics.eta_given_fraction) == (coverage, given)
