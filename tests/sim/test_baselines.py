"""Each baseline on a few jobs that can be followed by hand, and its laws on made-up traces."""

import pytest

from scheduler.sim.baselines.las import FIRST_QUEUE_GPU_MS
from scheduler.sim.baselines.replay import replay_baseline
from scheduler.sim.outcome import Outcome
from scheduler.sim.policies import BASELINES
from scheduler.sim.synthetic import make_trace
from scheduler.sim.trace import Cluster, TraceJob
from tests.sim.audit import find_faults
from tests.sim.traces import cluster_of, job

Stretch = tuple[str, float, float]


def replay(policy: str, jobs: list[TraceJob] | tuple[TraceJob, ...], cluster: Cluster) -> Outcome:
    return replay_baseline(jobs, cluster, BASELINES[policy](), resume_ms=60_000)


def stretches(outcome: Outcome) -> list[Stretch]:
    """Return who ran from when till when, in seconds, in order of starts."""
    runs = sorted(outcome.runs, key=lambda run: (run.start_ms, run.job))
    return [(outcome.jobs[run.job].job_id, run.start_ms / 1000, run.stop_ms / 1000) for run in runs]


def test_fifo_lets_nobody_pass_a_gang_that_waits() -> None:
    jobs = [job("a", 0, 1, 100), job("gang", 1, 2, 10), job("b", 2, 1, 5)]

    outcome = replay("fifo", jobs, cluster_of(1, 2))

    assert stretches(outcome) == [("a", 0, 100), ("gang", 100, 110), ("b", 110, 115)]


@pytest.mark.parametrize(
    ("limit_s", "want"),
    [
        pytest.param(98, ("b", 2, 7), id="a limit that ends just in time passes"),
        pytest.param(99, ("b", 110, 115), id="a limit that ends too late waits"),
        pytest.param(None, ("b", 110, 115), id="no limit is no promise"),
    ],
)
def test_easy_lets_pass_who_is_gone_before_the_head_was_to_start(
    limit_s: float | None, want: Stretch
) -> None:
    jobs = [
        job("a", 0, 1, 100, limit_s=100),
        job("gang", 1, 2, 10, limit_s=10),
        job("b", 2, 1, 5, limit_s=limit_s),
    ]

    outcome = replay("easy", jobs, cluster_of(1, 2))

    assert want in stretches(outcome)
    assert ("gang", 100, 110) in stretches(outcome)


def test_easy_lets_pass_on_gpus_that_the_head_leaves_free() -> None:
    # Two nodes of two: the head will have the first; the second has one GPU that nobody needs.
    jobs = [
        job("a", 0, 1, 100, limit_s=100),
        job("b", 0, 1, 500, limit_s=500),
        job("c", 0, 1, 900, limit_s=900),
        job("head", 1, 2, 10, limit_s=10),
        job("long", 2, 1, 5000, limit_s=5000),
    ]

    outcome = replay("easy", jobs, cluster_of(2, 2))

    assert ("long", 2, 5002) in stretches(outcome)
    assert ("head", 500, 510) in stretches(outcome)


def test_easy_takes_a_job_that_outruns_its_limit_to_end_at_once() -> None:
    jobs = [
        job("a", 0, 1, 100, limit_s=10),
        job("gang", 1, 2, 10, limit_s=10),
        job("b", 50, 1, 5, limit_s=5),
        job("c", 50, 1, 5, limit_s=0.001),
    ]

    outcome = replay("easy", jobs, cluster_of(1, 2))

    assert stretches(outcome)[:2] == [("a", 0, 100), ("gang", 100, 110)]


def test_easy_without_any_limit_is_fifo() -> None:
    cluster = cluster_of(4)
    trace = make_trace(num_jobs=300, cluster=cluster, seed=3)
    jobs = [
        job(one.job_id, one.submit_ms / 1000, one.gpus, one.duration_ms / 1000) for one in trace
    ]

    assert stretches(replay("easy", jobs, cluster)) == stretches(replay("fifo", jobs, cluster))


def test_srtf_evicts_for_a_shorter_job_and_pays_to_resume() -> None:
    jobs = [job("long", 0, 1, 100), job("short", 10, 1, 20), job("next", 35, 1, 200)]

    outcome = replay("srtf", jobs, cluster_of(1, 1))

    assert stretches(outcome) == [
        ("long", 0, 10),
        ("short", 10, 30),
        ("long", 30, 180),  # 60 s to resume and the 90 s it still needs
        ("next", 180, 380),
    ]


def test_srtf_leaves_alone_whom_nobody_needs_to_disturb() -> None:
    jobs = [job("long", 0, 1, 100), job("short", 10, 1, 20), job("gang", 11, 4, 1000)]

    outcome = replay("srtf", jobs, cluster_of(1, 4))

    assert stretches(outcome) == [("long", 0, 100), ("short", 10, 30), ("gang", 100, 1100)]


def test_las_moves_who_has_had_enough_behind_who_is_new() -> None:
    threshold_s = FIRST_QUEUE_GPU_MS / 1000
    jobs = [job("old", 0, 1, threshold_s + 500), job("new", 100, 1, 1000)]

    outcome = replay("las", jobs, cluster_of(1, 1))

    assert stretches(outcome) == [
        ("old", 0, threshold_s),
        ("new", threshold_s, threshold_s + 1000),
        ("old", threshold_s + 1000, threshold_s + 1000 + 60 + 500),
    ]


def test_las_counts_service_in_gpus_times_time() -> None:
    threshold_s = FIRST_QUEUE_GPU_MS / 1000
    jobs = [job("wide", 0, 4, threshold_s), job("new", 1, 1, 10)]

    outcome = replay("las", jobs, cluster_of(1, 4))

    assert stretches(outcome)[:2] == [
        ("wide", 0, threshold_s / 4),
        ("new", threshold_s / 4, threshold_s / 4 + 10),
    ]


@pytest.mark.parametrize("policy", BASELINES)
@pytest.mark.parametrize(
    ("cluster", "load"),
    [
        pytest.param(cluster_of(4, 8), 0.7, id="quiet"),
        pytest.param(cluster_of(4, 8), 1.5, id="overloaded"),
        pytest.param(cluster_of(3, 5), 1.1, id="odd nodes, gangs with a rest"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_no_gpu_is_used_twice_gangs_are_whole_and_service_is_exact(
    policy: str, cluster: Cluster, load: float, seed: int
) -> None:
    jobs = make_trace(num_jobs=400, cluster=cluster, seed=seed, load=load)

    outcome = replay(policy, jobs, cluster)

    assert find_faults(outcome, resume_ms=60_000) == []


@pytest.mark.parametrize("policy", BASELINES)
def test_a_replay_is_the_same_each_time(policy: str) -> None:
    cluster = cluster_of(4)
    jobs = make_trace(num_jobs=400, cluster=cluster, seed=5, load=1.2)

    assert replay(policy, jobs, cluster).runs == replay(policy, jobs, cluster).runs


@pytest.mark.parametrize("policy", ["srtf", "las"])
def test_evicting_policies_evict_and_others_never(policy: str) -> None:
    cluster = cluster_of(2)
    jobs = make_trace(num_jobs=400, cluster=cluster, seed=5, load=1.2)

    evictions = {name: count_evictions(replay(name, jobs, cluster)) for name in BASELINES}

    assert evictions[policy] > 0
    assert evictions["fifo"] == evictions["easy"] == 0


def count_evictions(outcome: Outcome) -> int:
    return sum(not run.is_last for run in outcome.runs)
