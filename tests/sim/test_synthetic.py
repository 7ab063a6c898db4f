"""Made-up traces look like a shared cluster's log, and are the same each time."""

from collections import Counter

import pytest

from scheduler.sim.synthetic import LIMITS_S, make_trace
from scheduler.sim.trace import parse_trace, write_trace
from tests.sim.traces import cluster_of

CLUSTER = cluster_of(8)
JOBS = make_trace(num_jobs=4000, cluster=CLUSTER, seed=7)


def test_equal_seeds_make_equal_traces_and_others_others() -> None:
    assert make_trace(num_jobs=4000, cluster=CLUSTER, seed=7) == JOBS
    assert make_trace(num_jobs=4000, cluster=CLUSTER, seed=8) != JOBS


def test_a_made_up_trace_can_be_read() -> None:
    assert parse_trace(write_trace(JOBS), CLUSTER) == JOBS


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5])
def test_the_load_is_what_was_asked_for(load: float) -> None:
    jobs = make_trace(num_jobs=4000, cluster=CLUSTER, seed=7, load=load)

    work_ms = sum(one.gpus * one.duration_ms for one in jobs)

    # 4000 arrivals in 40-odd days: the span varies by a few per cent around its mean.
    assert work_ms / (CLUSTER.num_gpus * jobs[-1].submit_ms) == pytest.approx(load, rel=0.1)


def test_few_jobs_have_most_of_the_gpu_time() -> None:
    work = sorted((one.gpus * one.duration_ms for one in JOBS), reverse=True)

    assert sum(work[: len(work) // 10]) > 0.7 * sum(work)


def test_gangs_are_mixed_and_never_larger_than_the_cluster() -> None:
    small = make_trace(num_jobs=500, cluster=cluster_of(1), seed=7)

    assert set(Counter(one.gpus for one in JOBS)) == {1, 2, 4, 8, 16, 32}
    assert max(one.gpus for one in small) == 8


def test_tenants_are_unequal() -> None:
    counts = Counter(one.vc for one in JOBS).most_common()

    assert len(counts) == 8
    assert counts[0][1] > 4 * counts[-1][1]


def test_more_jobs_come_by_day_than_by_night() -> None:
    # Submits start at midnight; noon is the middle of the day.
    by_day = sum(21_600 <= one.submit_ms // 1000 % 86_400 < 64_800 for one in JOBS)

    assert by_day > 1.5 * (len(JOBS) - by_day)


def test_limits_are_customary_and_never_below_the_duration() -> None:
    limits = [one.limit_ms for one in JOBS if one.limit_ms is not None]

    assert len(limits) == len(JOBS)
    assert {limit // 1000 for limit in limits} <= set(LIMITS_S)
    assert all(one.limit_ms is not None and one.limit_ms >= one.duration_ms for one in JOBS)
