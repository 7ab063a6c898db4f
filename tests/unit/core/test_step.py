"""One pass: order, gangs, holds, caps, reasons."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import ClusterView, JobView, NodeView, QueueView, QuotaView
from scheduler.core.decisions import Admit, Explain, Hold, Plan, Start
from scheduler.core.deltas import Observed
from scheduler.core.policy import HOUR_MS
from scheduler.core.reasons import Reason
from scheduler.core.state import State
from scheduler.core.states import JobState
from scheduler.core.step import step
from tests.unit.core.world import NOW_MS, World, job, node, nodes_of, shape


def plan_of(nodes: list[NodeView], jobs: list[JobView], now_ms: int = NOW_MS, **rules: Any) -> Plan:
    """Return what a new state decides in its first pass."""
    state = State()
    state.is_checked = True
    view = ClusterView(nodes=tuple(nodes), jobs=tuple(jobs), **rules)
    _, plan = step(state, [Observed(view=view)], now_ms)
    return plan


def started(plan: Plan) -> dict[str, list[tuple[str, int]]]:
    return {
        one.job_id: [(share.node_id, share.num_workers) for share in one.placement.shares]
        for one in plan.decisions
        if isinstance(one, Start)
    }


def reasons(plan: Plan) -> dict[str, tuple[str, str]]:
    return {
        one.job_id: (one.reason, one.message)
        for one in plan.decisions
        if isinstance(one, Explain | Hold)
    }


def test_higher_priority_goes_first_then_the_shorter_then_who_came_first() -> None:
    jobs = [
        job("j1", limit_ms=2 * HOUR_MS),
        job("j2", limit_ms=HOUR_MS),
        job("j3", limit_ms=HOUR_MS),
        job("j4", limit_ms=9 * HOUR_MS, priority=90),
    ]

    plan = plan_of(nodes_of(3), jobs)

    assert list(started(plan)) == ["j4", "j2", "j3"]


def test_what_fits_beside_a_blocked_gang_starts() -> None:
    jobs = [job("j1", workers=4, limit_ms=HOUR_MS), job("j2", limit_ms=HOUR_MS)]

    plan = plan_of(nodes_of(2, 2), jobs)

    assert list(started(plan)) == ["j2", "j1"] or list(started(plan)) == ["j2"]


def test_another_pool_is_not_blocked() -> None:
    nodes = [node("n0", 1, closed_reason="silent"), node("n1", 1, pool="other")]

    plan = plan_of(nodes, [job("j1", priority=90), job("j2", pool="other")])

    assert list(started(plan)) == ["j2"]


def test_a_pending_job_is_admitted_and_started_in_one_pass() -> None:
    plan = plan_of(nodes_of(1), [job("j1", state=JobState.PENDING, version=4)])

    admit, start = plan.decisions
    assert isinstance(admit, Admit)
    assert admit.version == 4
    assert isinstance(start, Start)
    assert start.version == 5


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"is_held": True}, Reason.HELD_BY_USER, id="held by its user"),
        pytest.param({"waits_for": ("j0",)}, Reason.DEPENDENCY_NOT_MET, id="waits for another"),
        pytest.param({"queue": "night"}, Reason.QUEUE_CLOSED, id="its queue is closed"),
        pytest.param(
            {"not_before_ms": NOW_MS + 1}, Reason.BEGIN_TIME_NOT_REACHED, id="its time is to come"
        ),
    ],
)
def test_who_is_held_back_does_not_start_and_says_so(changes: dict[str, Any], want: Reason) -> None:
    queues = (QueueView(name="night", pool="default", is_open=False),)

    plan = plan_of(nodes_of(1), [job("j1", **changes)], queues=queues)

    assert started(plan) == {}
    assert reasons(plan)["j1"][0] == want


def test_a_begin_time_ahead_sets_the_next_wake_up() -> None:
    view = job("j1", not_before_ms=NOW_MS + 500, not_before_reason=Reason.RETRY_BACKOFF)

    early = plan_of(nodes_of(1), [view])
    late = plan_of(nodes_of(1), [view], now_ms=NOW_MS + 500)

    assert early.next_wakeup_ms == NOW_MS + 500
    assert started(early) == {}
    assert list(started(late)) == ["j1"]


@pytest.mark.parametrize(
    ("nodes", "changes", "want", "numbers"),
    [
        pytest.param([], {}, Reason.NO_NODES, ["pool default"], id="nobody has joined"),
        pytest.param(
            [node("n0", closed_reason="cordoned"), node("n1", closed_reason="silent")], {},
            Reason.NO_NODES, ["1 cordoned", "1 silent"], id="none takes new work",
        ),
        pytest.param(
            nodes_of(1), {"shape": job("j9", 16, 1).shape}, Reason.INSUFFICIENT_RESOURCES,
            ["16 workers", "room for 1"], id="not enough at all",
        ),
        pytest.param(
            nodes_of(4), {"shape": shape(1, 1, gpu_models=("B200",))}, Reason.GPU_UNAVAILABLE,
            ["B200"], id="no node has such GPUs",
        ),
    ],
)  # fmt: skip
def test_every_waiting_job_says_why_with_numbers(
    nodes: list[NodeView], changes: dict[str, Any], want: Reason, numbers: list[str]
) -> None:
    reason, message = reasons(plan_of(nodes, [job("j1", **changes)]))["j1"]

    assert reason == want
    assert all(number in message for number in numbers)


def test_scattered_room_says_how_much_there_is_and_what_to_do() -> None:
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    for number in range(2):
        world.submit(job(f"j{number}", 1, 5, limit_ms=HOUR_MS, is_preemptible=False))
    world.settle()

    world.submit(job("j9", 6, 1, limit_ms=HOUR_MS))
    world.settle()

    blocked = world.jobs["j9"]
    assert blocked.reason == Reason.FRAGMENTED
    assert "room for 6, at most 3 of them on one node" in blocked.message
    assert "resources.spread" in blocked.message


@pytest.mark.parametrize(
    ("quota", "want", "numbers"),
    [
        pytest.param(
            QuotaView(project="default", limit_gpus=2), Reason.QUOTA_REACHED,
            ["project default", "2 GPUs", "needs 4"], id="its project's limit",
        ),
        pytest.param(
            QuotaView(project="default", user="ann", limit_gpus=3), Reason.QUOTA_REACHED,
            ["user ann", "3 GPUs", "needs 4"], id="its user's limit",
        ),
        pytest.param(
            QuotaView(project="default", guaranteed_gpus=1, may_borrow=False),
            Reason.QUOTA_REACHED, ["may use 1 GPUs"], id="a project that may not borrow",
        ),
        pytest.param(
            QuotaView(project="default", budget_gpu_ms=5 * HOUR_MS, spent_gpu_ms=5 * HOUR_MS),
            Reason.BUDGET_SPENT, ["5 GPU-hours"], id="its month's budget",
        ),
    ],
)  # fmt: skip
def test_a_quota_keeps_a_job_waiting_and_says_which(
    quota: QuotaView, want: Reason, numbers: list[str]
) -> None:
    plan = plan_of(nodes_of(8), [job("j1", 4, 1, user="ann")], quotas=(quota,))

    reason, message = reasons(plan)["j1"]
    assert started(plan) == {}
    assert reason == want
    assert all(number in message for number in numbers)


def test_a_job_without_gpus_needs_no_quota() -> None:
    quota = QuotaView(project="default", limit_gpus=0)

    plan = plan_of(nodes_of(8), [job("j1", 1, 0)], quotas=(quota,))

    assert list(started(plan)) == ["j1"]


def test_jobs_behind_the_first_of_their_kind_say_behind_whom() -> None:
    jobs = [job(f"j{number}", 16, 1, limit_ms=HOUR_MS) for number in range(3)]

    told = reasons(plan_of(nodes_of(8), jobs))

    assert told["j1"] == (
        Reason.HIGHER_PRIORITY_AHEAD,
        "waits in line behind j0, which waits itself",
    )


def test_an_unchanged_reason_is_not_written_again() -> None:
    (explain,) = plan_of([], [job("j1")]).decisions
    assert isinstance(explain, Explain)
    told = job("j1", reason=explain.reason, message=explain.message)

    assert plan_of([], [told]).decisions == ()


def test_a_priority_may_change_while_waiting() -> None:
    world = World()
    world.put_node(node("n0", 1))
    world.submit(job("j0", limit_ms=HOUR_MS, is_preemptible=False))
    world.settle()
    world.submit(job("j1", limit_ms=HOUR_MS), job("j2", limit_ms=9 * HOUR_MS))
    world.settle()

    world.change("j2", priority=90)
    world.end("j0")
    world.settle()

    assert [job_id for _, job_id in world.starts] == ["j0", "j2"]


def test_who_has_had_more_than_a_fair_share_goes_later() -> None:
    world = World()
    world.put_node(node("n0", 8))
    world.submit(job("j0", 8, 1, project="heavy", limit_ms=999 * HOUR_MS, is_preemptible=False))
    world.settle()
    world.now_ms += 480 * HOUR_MS  # of usage that halves in seven days
    for number in (1, 2):
        project = "heavy" if number == 1 else "light"
        world.submit(job(f"j{number}", 8, 1, project=project, limit_ms=HOUR_MS))
    world.settle()

    world.end("j0")
    world.now_ms += 61_000
    world.settle()

    assert [job_id for _, job_id in world.starts] == ["j0", "j2"]


_sizes = st.lists(st.integers(0, 8), max_size=5)
_jobs = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4), st.integers(0, 2)), max_size=12)


@given(sizes=_sizes, wanted=_jobs)
def test_equal_input_gives_equal_output_in_any_order(
    sizes: list[int], wanted: list[tuple[int, int, int]]
) -> None:
    nodes = nodes_of(*sizes)
    jobs = [job(f"j{i}", w, g, priority=p) for i, (w, g, p) in enumerate(wanted)]

    assert plan_of(nodes, jobs) == plan_of(nodes[::-1], jobs[::-1])
