"""One pass: order, gangs, holds, reasons; and its laws over random clusters."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import ClusterView, NodeView, WaitingJob
from scheduler.core.decisions import Admit, Explain, Hold, Plan, Start
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources
from scheduler.core.states import JobState
from scheduler.core.step import Observed, step

NOW_MS = 1_000_000


def _node(name: str, gpus: int, free: int | None = None, **changes: object) -> NodeView:
    free = gpus if free is None else free
    node = NodeView(
        node_id=name,
        pool="default",
        capacity=Resources(num_gpus=gpus, cpu_milli=64_000),
        free=Resources(num_gpus=free, cpu_milli=64_000),
        free_gpu_indices=tuple(range(free)),
    )
    return dataclasses.replace(node, **changes)  # type: ignore[arg-type]  # tests name real fields


def _job(name: str, workers: int = 1, gpus: int = 1, **changes: object) -> WaitingJob:
    job = WaitingJob(
        job_id=name,
        version=1,
        state=JobState.QUEUED,
        sequence=int(name[1:]),
        priority=50,
        pool="default",
        num_workers=workers,
        per_worker=Resources(num_gpus=gpus, cpu_milli=1000),
    )
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]  # tests name real fields


def _pass(nodes: list[NodeView], jobs: list[WaitingJob], now_ms: int = NOW_MS) -> Plan:
    view = ClusterView(nodes=tuple(nodes), waiting=tuple(jobs))
    _, plan = step(ClusterView(), [Observed(view=view)], now_ms)
    return plan


def _started(plan: Plan) -> dict[str, list[tuple[str, int]]]:
    return {
        one.job_id: [(share.node_id, share.num_workers) for share in one.placement.shares]
        for one in plan.decisions
        if isinstance(one, Start)
    }


@pytest.mark.parametrize(
    ("free_gpus", "want"),
    [
        pytest.param([8, 8], [("n0", 8), ("n1", 8)], id="a gang of two nodes starts together"),
        pytest.param([8, 7], None, id="a gang never starts in part"),
        pytest.param([16, 16], [("n0", 16)], id="one node is better than two"),
        pytest.param([24, 16], [("n1", 16)], id="the fullest node that still fits is taken"),
    ],
)
def test_a_gang_is_placed_whole_or_not_at_all(
    free_gpus: list[int], want: list[tuple[str, int]] | None
) -> None:
    nodes = [_node(f"n{i}", 32, free) for i, free in enumerate(free_gpus)]

    plan = _pass(nodes, [_job("j1", workers=16)])

    assert _started(plan).get("j1") == want


def test_higher_priority_goes_first_then_submit_order() -> None:
    jobs = [_job("j1"), _job("j2"), _job("j3", priority=90)]

    plan = _pass([_node("n0", 2)], jobs)

    assert list(_started(plan)) == ["j3", "j1"]


def test_a_waiting_gang_is_not_overtaken_in_its_pool() -> None:
    jobs = [_job("j1", workers=4), _job("j2")]

    plan = _pass([_node("n0", 4, free=2)], jobs)

    assert _started(plan) == {}
    reasons = {one.job_id: one.reason for one in plan.decisions if isinstance(one, Explain)}
    assert reasons == {"j1": Reason.INSUFFICIENT_RESOURCES, "j2": Reason.HIGHER_PRIORITY_AHEAD}


def test_another_pool_is_not_blocked() -> None:
    nodes = [_node("n0", 1, free=0), _node("n1", 1, pool="other")]

    plan = _pass(nodes, [_job("j1"), _job("j2", pool="other")])

    assert list(_started(plan)) == ["j2"]


def test_a_pending_job_is_admitted_and_started_in_one_pass() -> None:
    plan = _pass([_node("n0", 1)], [_job("j1", state=JobState.PENDING, version=4)])

    admit, start = plan.decisions
    assert isinstance(admit, Admit)
    assert admit.version == 4
    assert isinstance(start, Start)
    assert start.version == 5


def test_a_held_job_waits_and_says_so() -> None:
    plan = _pass([_node("n0", 1)], [_job("j1", is_held=True)])

    (hold,) = plan.decisions
    assert isinstance(hold, Hold)
    assert hold.reason == Reason.HELD_BY_USER
    assert plan.next_wakeup_ms is None


def test_a_begin_time_ahead_sets_the_next_wake_up() -> None:
    job = _job("j1", not_before_ms=NOW_MS + 500, not_before_reason=Reason.RETRY_BACKOFF)

    early = _pass([_node("n0", 1)], [job])
    late = _pass([_node("n0", 1)], [job], now_ms=NOW_MS + 500)

    assert early.next_wakeup_ms == NOW_MS + 500
    assert _started(early) == {}
    assert list(_started(late)) == ["j1"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], Reason.NO_NODES),
        ([_node("n0", 8, is_schedulable=False)], Reason.NO_NODES),
        ([_node("n0", 8, free=0)], Reason.INSUFFICIENT_RESOURCES),
    ],
)
def test_every_waiting_job_says_why(nodes: list[NodeView], reason: Reason) -> None:
    plan = _pass(nodes, [_job("j1")])

    (explain,) = plan.decisions
    assert isinstance(explain, Explain)
    assert explain.reason == reason
    assert explain.message


def test_an_unchanged_reason_is_not_written_again() -> None:
    (explain,) = _pass([], [_job("j1")]).decisions
    assert isinstance(explain, Explain)
    told = _job("j1", reason=explain.reason, message=explain.message)

    assert _pass([], [told]).decisions == ()


_nodes = st.lists(st.integers(0, 8), max_size=5)
_jobs = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4), st.integers(0, 2)), max_size=12)


@given(frees=_nodes, wanted=_jobs)
def test_no_slot_is_given_twice_and_gangs_are_whole(
    frees: list[int], wanted: list[tuple[int, int, int]]
) -> None:
    nodes = [_node(f"n{i}", 8, free) for i, free in enumerate(frees)]
    jobs = [
        _job(f"j{i}", workers=workers, gpus=gpus, priority=priority)
        for i, (workers, gpus, priority) in enumerate(wanted)
    ]

    plan = _pass(nodes, jobs)

    given_out: set[tuple[str, int]] = set()
    cpu_milli = {node.node_id: node.free.cpu_milli for node in nodes}
    by_id = {job.job_id: job for job in jobs}
    for start in plan.decisions:
        if not isinstance(start, Start):
            continue
        job = by_id[start.job_id]
        assert sum(share.num_workers for share in start.placement.shares) == job.num_workers
        for share in start.placement.shares:
            assert len(share.gpu_indices) == share.num_workers * job.per_worker.num_gpus
            slots = {(share.node_id, index) for index in share.gpu_indices}
            assert not slots & given_out
            assert all(index < frees[int(share.node_id[1:])] for index in share.gpu_indices)
            given_out |= slots
            cpu_milli[share.node_id] -= share.num_workers * 1000
    assert min(cpu_milli.values(), default=0) >= 0


@given(frees=_nodes, wanted=_jobs)
def test_equal_input_gives_equal_output(
    frees: list[int], wanted: list[tuple[int, int, int]]
) -> None:
    nodes = [_node(f"n{i}", 8, free) for i, free in enumerate(frees)]
    jobs = [_job(f"j{i}", workers=w, gpus=g, priority=p) for i, (w, g, p) in enumerate(wanted)]

    assert _pass(nodes, jobs) == _pass(nodes[::-1], jobs[::-1])


@given(frees=_nodes, wanted=_jobs)
def test_the_first_job_in_order_waits_only_when_it_does_not_fit(
    frees: list[int], wanted: list[tuple[int, int, int]]
) -> None:
    nodes = [_node(f"n{i}", 8, free) for i, free in enumerate(frees)]
    jobs = [_job(f"j{i}", workers=w, gpus=g, priority=p) for i, (w, g, p) in enumerate(wanted)]

    plan = _pass(nodes, jobs)

    if jobs:
        first = min(jobs, key=lambda job: (-job.priority, job.sequence))
        room = sum(node.free.count_fitting(first.per_worker) for node in nodes)
        assert (first.job_id in _started(plan)) == (room >= first.num_workers and bool(nodes))
