"""The driver does to jobs what the core decides, shows it what came of it, and nothing else."""

from collections.abc import Callable, Sequence

import pytest

from scheduler.core.cluster import Claim, JobView, NodeShare, Placement, Reservation
from scheduler.core.decisions import Admit, Explain, Hold, Keep, Plan, Preempt, Reserve, Start
from scheduler.core.deltas import Delta, JobGone, JobSeen
from scheduler.core.states import JobState
from scheduler.sim.baselines.replay import replay_baseline
from scheduler.sim.driver import BadPlan, Options, replay_core
from scheduler.sim.metrics import measure
from scheduler.sim.outcome import Forecast, Outcome
from scheduler.sim.policies import BASELINES
from scheduler.sim.synthetic import make_trace
from scheduler.sim.trace import Cluster, TraceJob
from tests.sim.audit import find_faults
from tests.sim.fake_core import Seen, core_that, decide_fifo, start
from tests.sim.traces import cluster_of, job

ONE_GPU = cluster_of(1, 1)


class Log:
    """Everything that went to and came from the core."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, list[Delta], Plan]] = []

    def observe(self, now_ms: int, deltas: Sequence[Delta], plan: Plan) -> None:
        self.passes.append((now_ms, list(deltas), plan))

    def views(self, job_id: str) -> list[JobView]:
        """Return what was shown of a job, in order."""
        seen = [delta for _, deltas, _ in self.passes for delta in deltas]
        return [
            delta.job for delta in seen if isinstance(delta, JobSeen) and delta.job.job_id == job_id
        ]


def drive(
    decide: Callable[[Seen, int], Plan],
    jobs: Sequence[TraceJob],
    cluster: Cluster = ONE_GPU,
    options: Options | None = None,
) -> tuple[Outcome, Log]:
    log = Log()
    outcome = replay_core(
        jobs,
        cluster,
        step=core_that(decide),
        state=Seen(),
        options=options,
        observe=log.observe,
    )
    return outcome, log


def times(outcome: Outcome) -> list[tuple[str, float, float]]:
    return [
        (outcome.jobs[run.job].job_id, run.start_ms / 1000, run.stop_ms / 1000)
        for run in outcome.runs
    ]


def decide_last_first(seen: Seen, now_ms: int) -> Plan:
    """Give the one GPU to the job that came last, evicting who has it."""
    newest = max(seen.jobs.values(), key=lambda view: view.sequence, default=None)
    if newest is None or newest.placement is not None:
        return Plan()
    if not seen.running:
        return Plan(decisions=(start(newest, "n000", 0),))
    [holder] = seen.running
    if holder.state is JobState.STOPPING:
        return Plan()
    return Plan(decisions=(preempt(holder, newest.job_id),))


def preempt(view: JobView, for_job: str) -> Preempt:
    return Preempt(
        job_id=view.job_id,
        version=view.version,
        reason="Preempting",
        for_job=for_job,
        lost_gpu_ms=0,
    )


def test_the_same_policy_has_the_same_outcome_as_among_the_baselines() -> None:
    cluster = cluster_of(1)
    jobs = [
        one
        for one in make_trace(num_jobs=300, cluster=cluster, seed=2, load=1.1)
        if one.gpus <= cluster.gpus_per_node
    ]

    outcome, _ = drive(decide_fifo, jobs, cluster)

    baseline = replay_baseline(jobs, cluster, BASELINES["fifo"](), resume_ms=60_000)
    assert outcome.runs == baseline.runs
    assert measure(outcome, wall_s=0) == measure(baseline, wall_s=0)


def test_the_core_is_shown_what_a_service_knows_and_no_more() -> None:
    jobs = [job("a", 5, 2, 100, limit_s=300, vc="red"), job("b", 6, 1, 7)]

    _, log = drive(decide_fifo, jobs, cluster_of(2, 2))

    first, second = log.views("a")[0], log.views("b")[0]
    assert (first.submit_ms, first.sequence, first.project) == (5000, 0, "red")
    assert (first.shape.num_workers, first.shape.per_worker.num_gpus) == (2, 1)
    assert (first.limit_ms, first.state, first.version) == (300_000, JobState.QUEUED, 1)
    assert (second.limit_ms, second.sequence, second.project) == (None, 1, "default")
    for view in log.views("a") + log.views("b"):
        assert (view.history_ms, view.remaining_ms) == (None, None)


def test_without_limits_not_even_the_limit_is_shown() -> None:
    _, log = drive(decide_fifo, [job("a", 0, 1, 9, limit_s=99)], options=Options(uses_limits=False))

    assert {view.limit_ms for view in log.views("a")} == {None}


def test_what_happens_at_one_instant_is_one_batch() -> None:
    jobs = [job("a", 0, 1, 10), job("b", 10, 1, 5), job("c", 10, 1, 5)]

    outcome, log = drive(decide_fifo, jobs)

    batches = [deltas for now_ms, deltas, _ in log.passes if now_ms == 10_000]
    kinds = [(type(delta), getattr(delta, "job_id", None)) for delta in batches[0]]
    assert kinds == [(JobGone, "a"), (JobSeen, None), (JobSeen, None)]
    assert times(outcome) == [("a", 0, 10), ("b", 10, 15), ("c", 15, 20)]


def test_a_start_is_acknowledged_in_a_pass_of_the_same_instant() -> None:
    _, log = drive(decide_fifo, [job("a", 3, 1, 10)])

    assert [now_ms for now_ms, _, _ in log.passes] == [3000, 3000, 13_000]
    started = log.views("a")[1]
    assert (started.version, started.state, started.started_ms) == (2, JobState.RUNNING, 3000)
    assert started.placement is not None


def test_an_evicted_job_waits_with_its_progress_and_pays_to_resume() -> None:
    jobs = [job("old", 0, 1, 100), job("new", 30, 1, 50)]

    outcome, log = drive(decide_last_first, jobs)

    assert times(outcome) == [("old", 0, 30), ("new", 30, 80), ("old", 80, 210)]
    assert find_faults(outcome, resume_ms=60_000) == []
    evicted = log.views("old")[-2]
    assert (evicted.state, evicted.evictions, evicted.served_ms) == (JobState.QUEUED, 1, 30_000)
    assert (evicted.waiting_since_ms, evicted.placement) == (30_000, None)
    assert (evicted.reason, evicted.stop_reason) == ("Preempted", None)


def test_who_is_evicted_while_it_resumes_has_gained_nothing() -> None:
    jobs = [job("old", 0, 1, 100), job("new", 30, 1, 50), job("third", 100, 1, 5)]

    outcome, log = drive(decide_last_first, jobs)

    # 20 s of 60 s: it starts over with resuming, and its wall time counts all the same.
    assert times(outcome)[2:] == [("old", 80, 100), ("third", 100, 105), ("old", 105, 235)]
    assert log.views("old")[-2].served_ms == 50_000


def test_a_victim_that_takes_its_time_keeps_its_places_until_it_has_stopped() -> None:
    jobs = [job("old", 0, 1, 100), job("new", 30, 1, 50)]
    options = Options(stop_delay_ms=lambda job_id, eviction: 12_000)

    outcome, log = drive(decide_last_first, jobs, options=options)

    assert times(outcome) == [("old", 0, 42), ("new", 42, 92), ("old", 92, 92 + 60 + 58)]
    stopping = log.views("old")[2]
    assert (stopping.state, stopping.stop_reason) == (JobState.STOPPING, "Preempting")
    assert stopping.placement is not None


def test_a_victim_that_ends_before_it_has_stopped_has_ended() -> None:
    jobs = [job("old", 0, 1, 35), job("new", 30, 1, 50)]
    options = Options(stop_delay_ms=lambda job_id, eviction: 12_000)

    outcome, _ = drive(decide_last_first, jobs, options=options)

    assert times(outcome) == [("old", 0, 35), ("new", 35, 85)]


def test_what_a_decision_changes_is_shown_with_the_next_version() -> None:
    here = Placement(shares=(NodeShare(node_id="n000", num_workers=1, gpu_indices=(0,)),))
    claim = Claim(placement=here, until_ms=99_000)
    promise = Reservation(start_ms=99_000, node_ids=("n000",))

    def decide(seen: Seen, now_ms: int) -> Plan:
        if now_ms == 0 and seen.jobs["a"].version == 1:
            return Plan(
                decisions=(
                    Hold(job_id="a", version=1, reason="Held", message="why"),
                    Admit(job_id="a", version=2, reason="Free", message=""),
                    Explain(job_id="a", version=3, reason="Rank", message="2 ahead"),
                    Reserve(job_id="a", version=4, reservation=promise, cause="First"),
                    Keep(job_id="a", version=5, claim=claim),
                ),
                next_wakeup_ms=50_000,
            )
        return decide_fifo(seen, now_ms)

    _, log = drive(decide, [job("a", 0, 1, 10)])

    decided, started = log.views("a")[1:]
    assert (decided.version, decided.state) == (6, JobState.QUEUED)
    assert (decided.reason, decided.message) == ("Rank", "2 ahead")
    assert (decided.reservation, decided.claim) == (promise, claim)
    assert (started.version, started.reservation, started.claim) == (7, None, None)


def test_a_stale_decision_is_dropped() -> None:
    def decide(seen: Seen, now_ms: int) -> Plan:
        plan = decide_fifo(seen, now_ms)
        late = Explain(job_id="a", version=7, reason="Late", message="")
        unknown = Explain(job_id="nobody", version=1, reason="Late", message="")
        return Plan(decisions=(*plan.decisions, late, unknown))

    outcome, log = drive(decide, [job("a", 0, 1, 10)])

    assert outcome.num_stale == 2 * outcome.num_passes
    assert "Late" not in {view.reason for view in log.views("a")}


def test_the_core_is_woken_when_it_asked_to_be() -> None:
    def decide(seen: Seen, now_ms: int) -> Plan:
        return decide_fifo(seen, now_ms) if now_ms >= 7000 else Plan(next_wakeup_ms=7000)

    outcome, _ = drive(decide, [job("a", 0, 1, 10)])

    assert times(outcome) == [("a", 7, 17)]


def test_the_start_of_chosen_jobs_that_wait_is_forecast_at_their_submit() -> None:
    jobs = [job("a", 0, 1, 10), job("b", 2, 1, 5), job("c", 3, 1, 5)]
    asked: list[tuple[str, int, int]] = []

    def forecast(seen: Seen, job_id: str, now_ms: int) -> tuple[int, int]:
        asked.append((job_id, now_ms, len(seen.jobs)))
        return (8000, 12_000)

    outcome = replay_core(
        jobs,
        ONE_GPU,
        step=core_that(decide_fifo),
        state=Seen(),
        options=Options(forecast_jobs=frozenset({0, 1})),
        forecast=forecast,
    )

    # `a` starts at once: there is nothing to foretell. `c` was not chosen.
    assert asked == [("b", 2000, 2)]
    assert outcome.forecasts == [Forecast(job=1, interval_ms=(8000, 12_000))]
    assert measure(outcome, wall_s=0).eta_coverage == 1


def place(*shares: tuple[str, int, tuple[int, ...]]) -> Placement:
    return Placement(
        shares=tuple(
            NodeShare(node_id=node_id, num_workers=count, gpu_indices=gpus)
            for node_id, count, gpus in shares
        )
    )


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        pytest.param(place(("n000", 1, (0,))), "starts in part", id="part of a gang"),
        pytest.param(place(("n000", 2, (0, 0))), "needs its own", id="a GPU for two workers"),
        pytest.param(place(("n000", 2, ())), "needs its own", id="no GPUs named"),
        pytest.param(place(("n009", 2, (0, 1))), "unknown or named twice", id="an unknown node"),
        pytest.param(
            place(("n000", 1, (0,)), ("n000", 1, (1,))), "unknown or named twice", id="a node twice"
        ),
        pytest.param(place(("n000", 2, (1, 2))), "another job holds", id="no such GPU"),
    ],
)
def test_a_start_that_cannot_be_is_an_error_of_the_policy(
    placement: Placement, message: str
) -> None:
    def decide(seen: Seen, now_ms: int) -> Plan:
        [view] = seen.jobs.values()
        return Plan(decisions=(Start(job_id="a", version=view.version, placement=placement),))

    with pytest.raises(BadPlan, match=message):
        drive(decide, [job("a", 0, 2, 10)], cluster_of(1, 2))


@pytest.mark.parametrize(
    ("decide", "message"),
    [
        pytest.param(lambda seen, now_ms: Plan(), "1 jobs wait: a for no reason", id="sleeps"),
        pytest.param(
            lambda seen, now_ms: Plan(next_wakeup_ms=now_ms), "asks to be woken", id="never sleeps"
        ),
        pytest.param(
            lambda seen, now_ms: Plan(
                decisions=tuple(start(view, "n000", 0) for view in seen.jobs.values())
            ),
            "is started again",
            id="starts twice",
        ),
        pytest.param(
            lambda seen, now_ms: Plan(
                decisions=tuple(preempt(view, "x") for view in seen.jobs.values())
            ),
            "cannot be preempted",
            id="preempts who waits",
        ),
        pytest.param(
            lambda seen, now_ms: (
                Plan(decisions=tuple(preempt(view, "x") for view in seen.running))
                if seen.running
                else decide_fifo(seen, now_ms)
            ),
            "still starts and preempts",
            id="goes in circles",
        ),
    ],
)
def test_a_core_that_gets_nowhere_is_told_so(
    decide: Callable[[Seen, int], Plan], message: str
) -> None:
    with pytest.raises(BadPlan, match=message):
        drive(decide, [job("a", 0, 1, 10)])


def test_a_gpu_is_never_given_twice() -> None:
    def decide(seen: Seen, now_ms: int) -> Plan:
        return Plan(decisions=tuple(start(view, "n000", 0) for view in seen.waiting))

    with pytest.raises(BadPlan, match="b is given GPUs that another job holds"):
        drive(decide, [job("a", 0, 1, 10), job("b", 1, 1, 10)])
