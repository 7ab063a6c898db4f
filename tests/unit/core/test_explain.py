"""Why jobs wait and what would help: every answer follows from the state, none is invented."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scheduler.core.advice import find_steps
from scheduler.core.ahead import Lineup
from scheduler.core.calibration import Interval
from scheduler.core.cluster import (
    Claim,
    ClusterView,
    JobView,
    NodeShare,
    NodeView,
    Placement,
    QueueView,
    QuotaView,
    Reservation,
)
from scheduler.core.deltas import Observed
from scheduler.core.durations import ENOUGH
from scheduler.core.explain import Running, Waiting, explain_running, explain_waiting
from scheduler.core.following import follow
from scheduler.core.forecast import Unknown
from scheduler.core.forecaster import Forecaster
from scheduler.core.options import Freedom
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources
from scheduler.core.state import State
from scheduler.core.states import JobState
from tests.unit.core.world import NOW_MS, job, node, nodes_of

HOUR_MS = 3_600_000
DEFAULT = QueueView(name="default", pool="default")


def running(name: str, *shares: tuple[str, int], gpus: int = 1, **changes: object) -> JobView:
    """Return a job that holds GPUs 0, 1 … of nodes; (node, workers) each."""
    placement = Placement(
        shares=tuple(
            NodeShare(node_id=at, num_workers=count, gpu_indices=tuple(range(count * gpus)))
            for at, count in shares
        )
    )
    view = job(name, sum(count for _, count in shares), gpus)
    changed = {"limit_ms": HOUR_MS, "is_preemptible": False, **changes}
    return dataclasses.replace(
        view,
        state=JobState.RUNNING,
        placement=placement,
        started_ms=NOW_MS,
        **changed,  # type: ignore[arg-type]  # tests name real fields
    )


def state_of(
    nodes: list[NodeView],
    *jobs: JobView,
    quotas: tuple[QuotaView, ...] = (),
    queues: tuple[QueueView, ...] = (DEFAULT,),
    num_ended: int = ENOUGH,
) -> State:
    """Return a state as an oracle keeps it, that has seen jobs use all of their limits."""
    state = State(explains=False)
    view = ClusterView(nodes=tuple(nodes), jobs=jobs, quotas=quotas, queues=queues)
    follow(state, [Observed(view=view)], NOW_MS)
    for _ in range(num_ended):
        state.durations.add("default", HOUR_MS, HOUR_MS)
    return state


def ask(state: State, name: str, **freedom: object) -> Waiting:
    """Return what is said of a job of `state`."""
    return ask_of(state, state.jobs[name].view, **freedom)


def ask_of(state: State, view: JobView, **freedom: object) -> Waiting:
    """Return what is said of a job, submitted or not."""
    may = Freedom(**freedom)  # type: ignore[arg-type]  # tests name real fields
    return explain_waiting(state, view, Forecaster(), NOW_MS, freedom=may)


def change_of(waiting: Waiting, field: str) -> object:
    """Return what an option does to a field; None when no option changes it."""
    return next((one.change[field] for one in waiting.options if field in one.change), None)


FULL = running("j1", ("n0", 8))


@pytest.mark.parametrize(
    ("view", "more", "reason", "numbers"),
    [
        pytest.param(
            job("j2", is_held=True),
            {},
            Reason.HELD_BY_USER,
            {"needed_workers": 1, "needed_gpus": 1},
            id="held",
        ),
        pytest.param(
            job("j2", waits_for=("j9",)), {}, Reason.DEPENDENCY_NOT_MET, {}, id="a dependency"
        ),
        pytest.param(
            job("j2"),
            {"queues": (QueueView(name="default", pool="default", is_open=False),)},
            Reason.QUEUE_CLOSED,
            {},
            id="a closed queue",
        ),
        pytest.param(
            job("j2", 4),
            {"quotas": (QuotaView(project="default", limit_gpus=10),)},
            Reason.QUOTA_REACHED,
            {"needed_gpus": 4, "limit_gpus": 10, "used_gpus": 8},
            id="a quota",
        ),
        pytest.param(
            job("j2"),
            {
                "quotas": (
                    QuotaView(
                        project="default", budget_gpu_ms=HOUR_MS, spent_gpu_ms=HOUR_MS + 5000
                    ),
                )
            },
            Reason.BUDGET_SPENT,
            {"budget_gpu_seconds": 3600, "spent_gpu_seconds": 3605},
            id="a budget",
        ),
        pytest.param(
            job("j2", not_before_ms=NOW_MS + 90_500, message="starts no earlier than then"),
            {},
            Reason.BEGIN_TIME_NOT_REACHED,
            {"begins_in_seconds": 91},
            id="its time has not come",
        ),
        pytest.param(
            job("j2", 2, pool="empty"), {}, Reason.NO_NODES, {"pool_gpus": 0}, id="no machines"
        ),
        pytest.param(
            job("j2", 2),
            {},
            Reason.INSUFFICIENT_RESOURCES,
            {"needed_workers": 2, "free_workers": 0, "free_gpus": 0, "pool_gpus": 8},
            id="no room",
        ),
        pytest.param(
            job(
                "j2",
                claim=Claim(
                    placement=FULL.placement or Placement(shares=()), until_ms=NOW_MS + 40_000
                ),
            ),
            {},
            Reason.PREEMPTION_PENDING,
            {"kept_for_seconds": 40},
            id="others make room",
        ),
    ],
)
def test_the_blocker_is_named_with_its_numbers(
    view: JobView, more: dict[str, object], reason: Reason, numbers: dict[str, int]
) -> None:
    state = state_of(nodes_of(8), FULL, view, **more)  # type: ignore[arg-type]  # as it takes them

    said = ask(state, "j2")

    assert said.reason == reason
    assert said.message
    assert said.numbers | numbers == said.numbers


def test_a_fragmented_pool_is_told_from_a_full_one() -> None:
    state = state_of(
        nodes_of(8, 8), running("j1", ("n0", 5)), running("j2", ("n1", 5)), job("j3", 6)
    )

    said = ask(state, "j3")

    assert said.reason == Reason.FRAGMENTED
    assert said.numbers["free_workers"] == 6
    assert said.numbers["free_workers_on_one_node"] == 3


def test_room_that_is_kept_for_a_guarantee_is_open_to_what_ends_in_time() -> None:
    promised = job(
        "j2", 8, project="other",
        reservation=Reservation(start_ms=NOW_MS + HOUR_MS, node_ids=("n0",)),
    )  # fmt: skip
    late = job("j3", limit_ms=2 * HOUR_MS, is_preemptible=False, priority=40)
    state = state_of(nodes_of(8), running("j1", ("n0", 4)), promised, late)

    said = ask(state, "j3")

    assert said.reason == Reason.BACKFILL_TOO_LONG
    assert said.numbers["gap_seconds"] == 3600 - 30


def test_jobs_of_the_own_project_ahead_are_named_and_others_are_counted() -> None:
    own = [job(f"j{number}", 8, limit_ms=HOUR_MS, priority=60) for number in range(10, 35)]
    others = [
        job(f"j{number}", 4, limit_ms=HOUR_MS, priority=60, project="other")
        for number in range(40, 43)
    ]
    behind = job("j60", 8, limit_ms=HOUR_MS, priority=10)
    state = state_of(nodes_of(8), FULL, *own, *others, behind, job("j50", 8, limit_ms=HOUR_MS))

    said = ask(state, "j50")

    assert said.reason == Reason.HIGHER_PRIORITY_AHEAD
    assert said.ahead.own_ids == tuple(f"j{number}" for number in range(10, 30))
    assert (said.ahead.num_own, said.ahead.num_others) == (25, 3)
    assert said.ahead.own_gpu_ms == 25 * 8 * HOUR_MS
    assert said.ahead.others_gpu_ms == 3 * 4 * HOUR_MS
    assert "28 jobs" in said.message


def test_priority_beyond_the_quota_puts_nobody_ahead() -> None:
    quotas = (QuotaView(project="other", priority_max=50),)
    loud = [job(f"j{number}", 8, priority=90, project="other") for number in (3, 4)]
    early = job("j2", 8, priority=50)
    state = state_of(nodes_of(8), FULL, early, *loud, quotas=quotas)

    assert Lineup(state, state.jobs["j2"].view, NOW_MS).count() == 0
    assert Lineup(state, state.jobs["j4"].view, NOW_MS).count() == 2


def test_a_start_is_told_with_an_interval_and_the_guarantee() -> None:
    guarantee = Reservation(start_ms=NOW_MS + 2 * HOUR_MS, node_ids=("n0",))
    state = state_of(nodes_of(8), FULL, job("j2", 8, reservation=guarantee))

    said = ask(state, "j2")

    assert isinstance(said.start, Interval)
    assert NOW_MS < said.start.p10_ms <= said.start.p50_ms <= said.start.p90_ms
    assert said.latest_start_ms == guarantee.start_ms


@pytest.mark.parametrize(
    ("view", "num_ended", "word"),
    [
        pytest.param(job("j2", 8), ENOUGH - 1, "fewer than", id="a new service"),
        pytest.param(job("j2", 8, is_held=True), ENOUGH, "released", id="held"),
        pytest.param(job("j2", 8, pool="empty"), ENOUGH, "machine", id="no machines"),
        pytest.param(job("j2", 16), ENOUGH, "nothing that is known", id="more than there is"),
    ],
)
def test_an_estimate_is_withheld_rather_than_invented(
    view: JobView, num_ended: int, word: str
) -> None:
    state = state_of(nodes_of(8), FULL, view, num_ended=num_ended)

    said = ask(state, "j2", priority_max=100)

    assert isinstance(said.start, Unknown)
    assert word in said.start.why


def test_a_long_line_ahead_withholds_the_estimate() -> None:
    ahead = [job(f"j{number}", 8, limit_ms=HOUR_MS, priority=60) for number in range(10, 15)]
    state = state_of(nodes_of(8), FULL, *ahead, job("j50", 8, limit_ms=HOUR_MS))
    forecaster = Forecaster(ahead_max=4)

    said = explain_waiting(state, state.jobs["j50"].view, forecaster, NOW_MS, freedom=Freedom())

    assert said.start == Unknown(why="more than 4 jobs wait before it")


class TestOptions:
    """What would start sooner: simulated, and offered only when it does."""

    def test_fewer_workers_that_fit_now(self) -> None:
        state = state_of(nodes_of(8), running("j1", ("n0", 5)), job("j2", 8, limit_ms=HOUR_MS))

        said = ask(state, "j2", worker_counts=(4, 2, 1))

        assert change_of(said, "workers") == 2, "the largest that helps"
        (option,) = said.options
        assert option.start_ms == NOW_MS
        assert option.gained_ms is not None
        assert option.gained_ms > HOUR_MS // 2

    def test_another_pool_through_its_open_queue(self) -> None:
        queues = (
            DEFAULT,
            QueueView(name="a-side", pool="side"),
            QueueView(name="shut", pool="shut", is_open=False),
        )
        nodes = [*nodes_of(8), node("s0", 8, pool="side"), node("t0", 8, pool="shut")]
        state = state_of(nodes, FULL, job("j2", 8, limit_ms=HOUR_MS), queues=queues)

        said = ask(state, "j2")

        assert [one.change for one in said.options] == [{"queue": "a-side", "pool": "side"}]

    def test_a_gang_without_gpus_is_not_sent_where_it_would_get_some(self) -> None:
        queues = (DEFAULT, QueueView(name="gpus", pool="gpus"))
        nodes = [
            node("n0", 0, capacity=Resources(cpu_milli=2000, memory_mib=1 << 20)),
            node("g0", 8, pool="gpus"),
        ]
        held = dataclasses.replace(running("j1", ("n0", 2), gpus=0), limit_ms=HOUR_MS)
        state = state_of(nodes, held, job("j2", 2, 0, limit_ms=HOUR_MS), queues=queues)

        assert change_of(ask(state, "j2"), "pool") is None

    def test_spreading_over_nodes(self) -> None:
        running_ones = (running("j1", ("n0", 5)), running("j2", ("n1", 5)))
        state = state_of(nodes_of(8, 8), *running_ones, job("j3", 6, limit_ms=HOUR_MS))

        assert change_of(ask(state, "j3"), "resources.spread") is True

    def test_a_shorter_limit_that_ends_before_a_guarantee(self) -> None:
        promised = job(
            "j2", 8, project="other", limit_ms=HOUR_MS,
            reservation=Reservation(start_ms=NOW_MS + HOUR_MS, node_ids=("n0",)),
        )  # fmt: skip
        late = job("j3", limit_ms=4 * HOUR_MS, is_preemptible=False, priority=40)
        state = state_of(nodes_of(8), running("j1", ("n0", 4)), promised, late)

        assert change_of(ask(state, "j3"), "limits.wall_seconds") == 1800

    @pytest.mark.parametrize(
        ("priority_max", "want"),
        [
            pytest.param(100, 61, id="above the highest ahead"),
            pytest.param(60, None, id="not when the quota's most does not help"),
            pytest.param(50, None, id="never beyond the quota"),
        ],
    )
    def test_a_higher_priority(self, priority_max: int, want: int | None) -> None:
        ahead = [
            job(f"j{number}", 8, limit_ms=HOUR_MS // 2, priority=60, is_preemptible=False)
            for number in (3, 4)
        ]
        mine = job("j9", 8, limit_ms=HOUR_MS)
        state = state_of(nodes_of(8), FULL, *ahead, mine)

        assert change_of(ask(state, "j9", priority_max=priority_max), "priority") == want

    def test_nothing_is_offered_to_one_that_starts_at_once(self) -> None:
        state = state_of(nodes_of(8), job("j2", 4, limit_ms=HOUR_MS))

        said = ask(state, "j2", worker_counts=(2, 1), priority_max=100)

        assert said.reason == Reason.WAITING_FOR_PLACEMENT
        assert isinstance(said.start, Interval)
        assert not said.options

    def test_without_experience_only_what_starts_at_once_is_offered(self) -> None:
        state = state_of(
            nodes_of(8), running("j1", ("n0", 6)), job("j2", 8, limit_ms=HOUR_MS), num_ended=0
        )

        said = ask(state, "j2", worker_counts=(4, 2, 1))

        assert isinstance(said.start, Unknown)
        assert [(one.change, one.gained_ms) for one in said.options] == [({"workers": 2}, None)]

    def test_who_has_no_time_gets_no_options(self) -> None:
        state = state_of(nodes_of(8), running("j1", ("n0", 5)), job("j2", 8, limit_ms=HOUR_MS))

        said = explain_waiting(
            state,
            state.jobs["j2"].view,
            Forecaster(),
            NOW_MS,
            freedom=Freedom(worker_counts=(2,)),
            is_over=lambda: True,
        )

        assert not said.options
        assert not said.are_options_complete


def test_asking_changes_nothing() -> None:
    state = state_of(nodes_of(8, 8), FULL, job("j2", 8), job("j3", 16, limit_ms=HOUR_MS))
    before = state.observe()

    first = ask(state, "j3", worker_counts=(8, 4), priority_max=100)
    second = ask(state, "j3", worker_counts=(8, 4), priority_max=100)

    assert first == second
    assert state.observe() == before


def test_one_that_is_not_submitted_gets_the_answer_that_it_would_get() -> None:
    late = job("j3", 8, limit_ms=HOUR_MS)
    without = state_of(nodes_of(8), FULL, job("j2", 8, limit_ms=HOUR_MS))
    with_it = state_of(nodes_of(8), FULL, job("j2", 8, limit_ms=HOUR_MS), late)

    assert ask_of(without, late, worker_counts=(4,)) == ask(with_it, "j3", worker_counts=(4,))


@pytest.mark.parametrize(
    ("changes", "basis", "p50_ms"),
    [
        pytest.param(
            {"remaining_ms": 60_000, "measured_ms": NOW_MS},
            "progress",
            NOW_MS + 60_000,
            id="measured",
        ),
        pytest.param({"history_ms": 90_000}, "history", NOW_MS + 90_000, id="remembered"),
        pytest.param(
            {"stop_reason": Reason.PREEMPTING, "grace_ms": 30_000},
            "grace",
            NOW_MS + 30_000,
            id="leaving",
        ),
    ],
)
def test_the_end_of_a_running_job_is_told_from_the_best_that_is_known(
    changes: dict[str, Any], basis: str, p50_ms: int
) -> None:
    state = state_of(nodes_of(8), running("j1", ("n0", 8), **changes))

    said = explain_running(state, state.jobs["j1"].view, NOW_MS)

    assert said.basis == basis
    assert isinstance(said.end, Interval)
    assert said.end.p50_ms == p50_ms


def test_ended_jobs_say_how_long_one_may_take_and_its_limit_when_it_ends_at_the_latest() -> None:
    state = state_of(nodes_of(8), FULL)
    latest_ms = NOW_MS + HOUR_MS // 2

    said = explain_running(state, state.jobs["j1"].view, NOW_MS, latest_end_ms=latest_ms)

    assert said.basis == "durations"
    assert isinstance(said.end, Interval)
    assert NOW_MS < said.end.p10_ms <= said.end.p50_ms <= said.end.p90_ms <= latest_ms


def test_the_end_is_withheld_where_nothing_is_known() -> None:
    state = state_of(nodes_of(8), FULL, num_ended=0)

    said = explain_running(state, state.jobs["j1"].view, NOW_MS, latest_end_ms=NOW_MS + HOUR_MS)

    assert said == Running(job_id="j1", basis="", end=said.end, latest_end_ms=NOW_MS + HOUR_MS)
    assert isinstance(said.end, Unknown)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_says_what_to_do(reason: Reason) -> None:
    steps = find_steps(reason, "job_1")

    assert steps
    assert all(step.text and "{" not in step.text + step.command for step in steps)


def test_a_reason_of_a_newer_version_says_nothing() -> None:
    assert find_steps("NotYetThoughtOf", "job_1") == ()
