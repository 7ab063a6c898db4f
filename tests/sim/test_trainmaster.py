"""The core itself on made-up traces: whole gangs, exact service, the same each time."""

from zlib import crc32

import pytest

from scheduler.core.state import State
from scheduler.core.step import step
from scheduler.sim.driver import Options, replay_core
from scheduler.sim.policies import Setting, replay
from scheduler.sim.synthetic import make_trace
from scheduler.sim.trace import Cluster
from tests.sim.audit import find_faults
from tests.sim.traces import cluster_of


@pytest.mark.parametrize("uses_limits", [True, False])
@pytest.mark.parametrize(
    ("cluster", "load"),
    [
        pytest.param(cluster_of(4, 8), 0.7, id="quiet"),
        pytest.param(cluster_of(4, 8), 1.5, id="overloaded"),
    ],
)
def test_no_gpu_is_used_twice_gangs_are_whole_and_service_is_exact(
    cluster: Cluster, load: float, uses_limits: bool
) -> None:
    jobs = make_trace(num_jobs=300, cluster=cluster, seed=4, load=load)

    outcome = replay("trainmaster", jobs, Setting(cluster=cluster, uses_limits=uses_limits))

    assert find_faults(outcome, resume_ms=60_000) == []
    assert outcome.num_stale == 0


@pytest.mark.parametrize("seed", range(3))
def test_victims_that_stop_at_different_times_break_nothing(seed: int) -> None:
    cluster = cluster_of(4)
    jobs = make_trace(num_jobs=300, cluster=cluster, seed=seed, load=1.3)
    # Within the grace of a job, and different for each eviction of each.
    options = Options(
        stop_delay_ms=lambda job_id, eviction: crc32(f"{job_id} {eviction}".encode()) % 30_000
    )

    outcome = replay_core(jobs, cluster, step=step, state=State(explains=False), options=options)

    assert find_faults(outcome, resume_ms=60_000) == []
    assert any(not run.is_last for run in outcome.runs)


def test_a_replay_is_the_same_each_time() -> None:
    cluster = cluster_of(4)
    jobs = make_trace(num_jobs=300, cluster=cluster, seed=5, load=1.2)

    first, second = (replay("trainmaster", jobs, Setting(cluster=cluster)) for _ in range(2))

    assert first.runs == second.runs
    assert first.num_passes == second.num_passes
