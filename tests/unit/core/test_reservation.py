"""Guarantees: who gets one, what it keeps off, and what may put it off."""

from scheduler.core.decisions import Reserve
from scheduler.core.policy import HOUR_MS
from tests.unit.core.test_preemption import EAGER
from tests.unit.core.world import World, job, node, nodes_of


def guaranteed_world() -> World:
    """Two nodes: n0 is taken for an hour by who may not be asked to go; j9 needs both."""
    world = World(policy=EAGER)
    for view in nodes_of(8, 8):
        world.put_node(view)
    world.submit(job("j0", 1, 8, limit_ms=HOUR_MS, is_preemptible=False))
    world.settle()
    world.submit(job("j9", 2, 8, limit_ms=HOUR_MS))
    world.settle()
    world.advance(60_000)
    return world


def causes(world: World, job_id: str) -> list[str]:
    return [
        one.cause
        for plan in world.plans
        for one in plan.decisions
        if isinstance(one, Reserve) and one.job_id == job_id
    ]


def test_the_first_that_is_blocked_is_told_when_it_starts_at_the_latest() -> None:
    world = guaranteed_world()

    promise = world.jobs["j9"].reservation

    assert promise is not None
    assert promise.node_ids == ("n0", "n1")
    started_ms = world.jobs["j0"].started_ms
    grace_ms = world.jobs["j0"].grace_ms + world.policy.claim_extra_ms
    assert promise.start_ms == started_ms + HOUR_MS + grace_ms
    assert causes(world, "j9") == ["First"]


def test_only_the_first_has_a_guarantee() -> None:
    world = guaranteed_world()

    world.submit(job("j8", 2, 8, limit_ms=2 * HOUR_MS))
    world.advance(60_000)

    assert world.jobs["j8"].reservation is None


def test_a_guarantee_keeps_off_who_could_not_be_asked_to_go_and_would_not_end_in_time() -> None:
    world = guaranteed_world()

    world.submit(job("j1", 1, 1, limit_ms=30 * HOUR_MS, is_preemptible=False))
    world.submit(job("j2", 1, 1, limit_ms=600_000, is_preemptible=False))
    world.settle()

    assert world.jobs["j1"].placement is None
    assert world.jobs["j2"].placement is not None
    assert world.faults == []


def test_who_would_end_in_time_does_not_wait_behind_one_of_its_line_that_would_not() -> None:
    world = guaranteed_world()
    world.change("j9", priority=70)
    long = job("j1", 1, 1, limit_ms=30 * HOUR_MS, is_preemptible=False, priority=60)
    short = job("j2", 1, 1, limit_ms=600_000, is_preemptible=False)

    world.submit(long, short)
    world.settle()

    assert world.jobs["j1"].placement is None
    assert world.jobs["j2"].placement is not None


def test_a_guaranteed_job_starts_at_its_instant_at_the_latest() -> None:
    world = guaranteed_world()
    promise = world.jobs["j9"].reservation
    assert promise is not None
    for number in range(10, 30):
        world.submit(job(f"j{number}", 1, 1, limit_ms=30 * HOUR_MS))
    world.settle()

    world.now_ms = world.jobs["j0"].started_ms + HOUR_MS
    world.end("j0")
    world.settle()
    for victim in [one.job_id for one in world.jobs.values() if one.stop_reason]:
        world.stop(victim)
    world.settle()

    assert world.jobs["j9"].placement is not None
    assert world.now_ms <= promise.start_ms
    assert world.faults == []


def test_a_machine_that_is_lost_puts_a_guarantee_off_and_is_named_as_the_cause() -> None:
    world = guaranteed_world()
    world.put_node(node("n2", 8, closed_reason="cordoned"))

    world.put_node(node("n1", 8, closed_reason="silent"))
    world.settle()
    world.advance(20 * 60_000)

    assert "CapacityLost" in causes(world, "j9") or world.jobs["j9"].reservation is not None
    assert world.faults == []


def test_who_goes_first_takes_the_guarantee_over() -> None:
    world = guaranteed_world()

    world.submit(job("j8", 2, 8, limit_ms=HOUR_MS, priority=90))
    world.advance(60_000)

    assert world.jobs["j8"].reservation is not None
    assert world.jobs["j9"].reservation is None
    assert causes(world, "j9") == ["First", "HigherPriority"]
    assert world.faults == []


def test_who_is_held_keeps_no_guarantee() -> None:
    world = guaranteed_world()
    assert world.jobs["j9"].reservation is not None

    world.change("j9", is_held=True)
    world.submit(job("j1", 1, 1, limit_ms=30 * HOUR_MS, is_preemptible=False))
    world.advance(120_000)

    assert world.jobs["j1"].placement is not None


def test_a_new_scheduler_knows_the_guarantees_that_were_given() -> None:
    world = guaranteed_world()
    promise = world.jobs["j9"].reservation

    world.restart()
    world.settle()
    assert world.jobs["j9"].reservation == promise
    world.restart()
    world.submit(job("j8", 2, 8, limit_ms=HOUR_MS, priority=90))
    world.advance(120_000)

    reserved = [one.job_id for one in world.jobs.values() if one.reservation is not None]
    assert reserved == ["j8"]
