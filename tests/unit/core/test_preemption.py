"""Who is asked to go, for whom, and when nobody is."""

from dataclasses import replace
from typing import Any

import pytest

from scheduler.core.cluster import QuotaView
from scheduler.core.decisions import Keep, Preempt, Start
from scheduler.core.policy import DEFAULT_POLICY, HOUR_MS, Policy
from scheduler.core.reasons import Reason
from tests.unit.core.world import World, job, node, nodes_of, shape

LONG_MS = 100 * HOUR_MS
EAGER = replace(DEFAULT_POLICY, patience_ppm=0, patience_min_ms=0)


def busy_world(*running: int, gpus: int = 8, policy: Policy = EAGER, **changes: Any) -> World:
    """A node whose jobs have so many GPUs and long limits, and have run for an hour."""
    world = World(policy=policy)
    for view in nodes_of(gpus):
        world.put_node(view)
    for number, count in enumerate(running):
        world.submit(job(f"j{number}", 1, count, limit_ms=LONG_MS, **changes))
    world.settle()
    world.now_ms += HOUR_MS
    return world


def come(world: World, name: str, gpus: int, **changes: Any) -> list[str]:
    """A short job comes; return who is asked to go for it."""
    view = job(
        name,
        1,
        gpus,
        **{
            "limit_ms": 10 * 60_000,
            "submit_ms": world.now_ms,
            "waiting_since_ms": world.now_ms,
            **changes,
        },
    )
    world.submit(view)
    plans = world.settle()
    assert world.faults == []
    return [one.job_id for plan in plans for one in plan.decisions if isinstance(one, Preempt)]


def test_a_short_job_makes_room_among_long_ones() -> None:
    world = busy_world(8)

    assert come(world, "j9", 2) == ["j0"]
    assert world.jobs["j0"].stop_reason == Reason.PREEMPTING
    assert world.jobs["j9"].claim is not None


def test_who_made_room_starts_when_its_victims_have_stopped_and_not_before() -> None:
    world = busy_world(8)
    come(world, "j9", 2)
    assert world.jobs["j9"].placement is None

    world.stop("j0")
    world.settle()

    assert world.jobs["j9"].placement is not None
    assert world.faults == []


def test_nobody_goes_unless_the_whole_gang_then_fits() -> None:
    world = busy_world(4, 4)
    world.change("j1", is_preemptible=False)

    assert come(world, "j9", 8) == []


def test_those_who_lose_least_go() -> None:
    world = World(policy=EAGER)
    for view in nodes_of(4, 4):
        world.put_node(view)
    world.submit(*(job(f"j{number}", 1, 4, limit_ms=LONG_MS) for number in (0, 1)))
    world.settle()
    world.now_ms += HOUR_MS
    world.change("j1", saved_ms=world.now_ms - 1000)

    assert come(world, "j9", 4) == ["j1"]


def test_nobody_goes_who_need_not() -> None:
    world = busy_world(1, 1, 1, 1, 4)
    for number in range(4):
        world.change(f"j{number}", saved_ms=world.now_ms)

    gone = come(world, "j9", 4)

    assert sum(world.jobs[job_id].shape.num_gpus for job_id in gone) == 4


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"is_preemptible": False}, id="who may not be asked"),
        pytest.param({"evictions": DEFAULT_POLICY.evictions_max}, id="who has spent its budget"),
        pytest.param({"priority": 90}, id="who has the higher priority"),
        pytest.param({"stop_reason": Reason.CANCEL_REQUESTED}, id="who stops already"),
    ],
)
def test_not_to_be_evicted_is(changes: dict[str, object]) -> None:
    world = busy_world(8)
    world.change("j0", **changes)

    assert come(world, "j9", 2) == []


def test_a_job_keeps_its_places_in_its_exempt_time() -> None:
    world = busy_world(8, policy=replace(EAGER, exempt_ms=2 * HOUR_MS))

    assert come(world, "j9", 2) == []
    world.advance(HOUR_MS)

    assert world.evictions == {"j0": 1}
    assert world.faults == []


def test_a_job_evicts_only_when_it_has_waited_its_part_of_what_it_needs() -> None:
    policy = replace(DEFAULT_POLICY, patience_ppm=100_000, patience_min_ms=0)
    world = busy_world(8, policy=policy)

    assert come(world, "j9", 2) == []
    world.advance(59_999)
    assert world.evictions == {}
    world.advance(1)
    assert world.evictions == {"j0": 1}


def test_each_eviction_that_a_victim_has_suffered_doubles_the_wait() -> None:
    policy = replace(DEFAULT_POLICY, patience_ppm=100_000, patience_min_ms=0)
    world = busy_world(8, policy=policy, evictions=1)

    assert come(world, "j9", 2) == []
    world.advance(119_999)
    assert world.evictions == {}
    world.advance(1)
    assert world.evictions == {"j0": 1}


def test_an_estimate_that_is_hardly_better_evicts_nobody() -> None:
    world = busy_world(8, policy=replace(EAGER, floor_ppm=0))

    assert come(world, "j9", 8, limit_ms=LONG_MS * 3 // 4) == []
    assert come(world, "j8", 8, limit_ms=LONG_MS * 2 // 3) == ["j0"]


def test_a_small_job_moves_aside_when_a_larger_one_needs_its_node() -> None:
    world = World(policy=EAGER)
    for view in nodes_of(8, 8):
        world.put_node(view)
    for number, gpus in enumerate((7, 7, 1, 1)):
        world.submit(job(f"j{number}", 1, gpus, limit_ms=HOUR_MS))
        world.settle()
    world.end("j0")
    world.end("j1")
    world.settle()

    [moved] = come(world, "j9", 8, limit_ms=HOUR_MS)

    assert moved in ("j2", "j3")
    assert world.jobs[moved].stop_reason == Reason.MIGRATING
    world.stop(moved)
    world.settle()
    assert all(view.placement is not None for view in world.jobs.values())
    assert world.faults == []


def test_what_is_kept_goes_to_nobody_else() -> None:
    world = busy_world(8)
    come(world, "j9", 2)

    assert come(world, "j8", 1, limit_ms=60_000) == []
    world.stop("j0")
    world.settle()

    assert world.jobs["j9"].placement is not None
    assert world.jobs["j8"].placement is not None  # beside it, in what was not kept
    assert world.faults == []


def test_places_that_are_not_left_in_time_are_kept_no_longer() -> None:
    world = busy_world(8)
    come(world, "j9", 2)
    claim = world.jobs["j9"].claim
    assert claim is not None

    world.advance(claim.until_ms - world.now_ms)

    assert world.fates == {"lapsed": 1}
    assert world.jobs["j9"].claim is None
    assert world.faults == []


def test_a_guarantee_is_not_cut_into_by_several_evictions_at_once() -> None:
    # Each of the three alone could go: their project would still hold what is guaranteed.
    world = World(policy=EAGER)
    for view in nodes_of(6):
        world.put_node(view)
    world.set_rules((QuotaView(project="owner", guaranteed_gpus=4),))
    for number in range(3):
        world.submit(job(f"j{number}", 1, 2, project="owner", limit_ms=LONG_MS))
    world.settle()
    world.now_ms += HOUR_MS

    assert come(world, "j9", 6, project="guest", priority=90) == []
    assert come(world, "j8", 2, project="guest", priority=90) != []
    assert come(world, "j7", 2, project="guest", priority=90) == []


def test_a_project_takes_back_what_is_guaranteed_to_it_from_those_who_borrow() -> None:
    world = busy_world(4, 4, project="guest", priority=90)
    world.set_rules((QuotaView(project="owner", guaranteed_gpus=4),))

    assert len(come(world, "j9", 4, project="owner", limit_ms=LONG_MS, priority=10)) == 1
    assert come(world, "j8", 4, project="owner", limit_ms=LONG_MS, priority=10) == []


def test_what_is_kept_counts_as_used() -> None:
    world = busy_world(8)
    world.set_rules((QuotaView(project="default", limit_gpus=12),))

    come(world, "j9", 4)
    come(world, "j8", 4)

    kept = [one.job_id for one in world.jobs.values() if one.claim is not None]
    assert kept == ["j9"]


def test_who_has_spent_the_budget_meanwhile_gives_its_places_up() -> None:
    world = busy_world(8, project="guest")
    come(world, "j9", 2, project="owner")
    quota = QuotaView(project="owner", budget_gpu_ms=HOUR_MS, spent_gpu_ms=HOUR_MS)
    world.set_rules((quota,))

    plans = world.settle()

    decisions = [one for plan in plans for one in plan.decisions]
    assert [one.claim for one in decisions if isinstance(one, Keep)] == [None]
    assert not any(isinstance(one, Start) for one in decisions)
    assert world.faults == []


def test_what_a_project_has_beyond_its_guarantee_can_be_taken_as_soon_as_it_has_it() -> None:
    world = World(policy=EAGER)
    world.set_rules((QuotaView(project="red", guaranteed_gpus=4),))
    for name, model in (("n0", "A100"), ("n1", "H100")):
        world.put_node(node(name, 4, gpu_model=model))
    a100, h100 = (shape(1, 4, gpu_models=(model,)) for model in ("A100", "H100"))
    world.submit(job("j0", project="red", limit_ms=LONG_MS, shape=a100))
    world.submit(job("j1", project="blue", limit_ms=HOUR_MS, shape=a100))
    world.settle()
    assert world.jobs["j1"].claim is None

    world.submit(job("j2", project="red", limit_ms=LONG_MS, shape=h100))
    world.settle()

    assert world.jobs["j0"].stop_reason == Reason.PREEMPTING
    assert world.jobs["j1"].claim is not None
    assert world.faults == []
