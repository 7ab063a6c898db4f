"""What schedulers are known to do wrong, each as a small history."""

import dataclasses
import random
import time
from collections import Counter
from zlib import crc32

import pytest

from scheduler.core.cluster import JobView, QuotaView
from scheduler.core.decisions import Preempt, Start
from scheduler.core.deltas import Observed
from scheduler.core.estimates import estimate, measure_size
from scheduler.core.nodes import Nodes
from scheduler.core.placement import place
from scheduler.core.policy import DEFAULT_POLICY, HOUR_MS
from scheduler.core.state import State
from scheduler.core.step import step
from scheduler.sim.driver import Options, replay_core
from scheduler.sim.synthetic import make_trace
from scheduler.sim.trace import Cluster
from tests.sim.audit import find_faults
from tests.unit.core.histories import Setup, live, make_events
from tests.unit.core.world import World, job, node, nodes_of, shape

MINUTE_MS = 60_000


def stream(world: World, until_ms: int, *, load: float, seed: int = 0, first: int = 100) -> None:
    """Let one-GPU jobs of half an hour to two hours come and go, and victims stop at once."""
    chance = random.Random(seed)
    num_gpus = sum(len(view.gpu_indices) for view in world.nodes.values())
    mean_ms = 75 * MINUTE_MS
    ends: dict[str, int] = {}
    number, next_ms = first, world.now_ms
    while world.now_ms < until_ms:
        for view in list(world.jobs.values()):
            if view.user == "stream" and view.placement is not None and view.job_id not in ends:
                need_ms = (30 + crc32(view.job_id.encode()) % 90) * MINUTE_MS
                ends[view.job_id] = view.started_ms + max(1, need_ms - view.served_ms)
            if view.stop_reason is not None:
                ends.pop(view.job_id, None)
                world.stop(view.job_id)
        if world.unseen:
            world.settle()
            continue
        due = min(ends, key=lambda one: (ends[one], one), default=None)
        at_ms = next_ms if due is None else min(next_ms, ends[due])
        if world.wakeup_ms is not None and world.wakeup_ms < at_ms:
            world.now_ms = world.wakeup_ms
        else:
            world.now_ms = at_ms
            if due is not None and ends[due] <= at_ms:
                del ends[due]
                world.end(due)
            else:
                world.submit(
                    job(
                        f"j{number}",
                        user="stream",
                        limit_ms=2 * HOUR_MS,
                        submit_ms=world.now_ms,
                        waiting_since_ms=world.now_ms,
                    )
                )
                number += 1
                next_ms += max(1, int(chance.expovariate(load * num_gpus / mean_ms)))
        world.settle()


def stop_all(world: World) -> None:
    """Let everybody who was asked to go stop."""
    for job_id in [one.job_id for one in world.jobs.values() if one.stop_reason]:
        world.stop(job_id)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_gang_is_not_starved_by_a_stream_of_small_jobs(seed: int) -> None:
    world = World(is_checked=False)
    for view in nodes_of(8, 8):
        world.put_node(view)
    stream(world, world.now_ms + 3 * HOUR_MS, load=0.95, seed=seed)

    came_ms = world.now_ms
    gang = job("j1", 16, 1, limit_ms=HOUR_MS, submit_ms=came_ms, waiting_since_ms=came_ms)
    world.submit(gang)
    starved_ms = came_ms + world.policy.starved_min_ms
    stream(world, starved_ms + 3 * HOUR_MS, load=0.95, seed=seed + 10, first=10_000)

    # The small ones have the better keys for a day; then it goes first, and those who run are
    # asked to go, or have no more evictions left and end within their limits of two hours.
    started_ms = next(at_ms for at_ms, job_id in world.starts if job_id == "j1")
    grace_ms = gang.grace_ms + world.policy.claim_extra_ms
    assert started_ms <= starved_ms + 2 * HOUR_MS + grace_ms
    assert world.faults == []


def test_a_reservation_is_really_held() -> None:
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    for number in range(2):
        limit_ms = (1 + number) * HOUR_MS
        world.submit(job(f"j{number}", 1, 8, limit_ms=limit_ms, is_preemptible=False))
    world.settle()
    world.submit(job("j5", 2, 8, limit_ms=HOUR_MS, priority=60))
    world.advance(2 * MINUTE_MS)
    promise = world.jobs["j5"].reservation
    assert promise is not None

    world.now_ms = world.jobs["j0"].started_ms + HOUR_MS
    world.end("j0")
    for number in range(10, 30):
        limit_ms = (3 if number % 2 else 0) * HOUR_MS + 10 * MINUTE_MS
        world.submit(job(f"j{number}", limit_ms=limit_ms, is_preemptible=False))
    world.settle()

    backfilled = [one for one in world.jobs.values() if one.placement and one.job_id > "j1"]
    assert backfilled
    for one in backfilled:
        assert one.limit_ms is not None
        assert world.now_ms + one.limit_ms <= promise.start_ms


def test_lower_priority_goes_first_only_where_higher_does_not_fit() -> None:
    inversions = 0
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    chance = random.Random(1)
    for number in range(200):
        world.now_ms += MINUTE_MS
        world.submit(
            job(
                f"j{number}",
                1,
                chance.choice((1, 2, 4, 8)),
                priority=chance.choice((10, 50, 90)),
                limit_ms=chance.choice((1, 10)) * HOUR_MS,
                submit_ms=world.now_ms,
                waiting_since_ms=world.now_ms,
            )
        )
        if number % 2:
            running = sorted(one.job_id for one in world.jobs.values() if one.placement)
            world.end(chance.choice(running))
        waiting = {one.job_id: one for one in world.jobs.values() if one.placement is None}
        [plan, *_] = world.settle()
        for one in plan.decisions:
            if isinstance(one, Start) and (started := waiting.get(one.job_id)):
                inversions += sum(
                    other.priority > started.priority
                    and other.shape.num_gpus <= started.shape.num_gpus
                    and other.claim is None
                    and world.jobs[other.job_id].placement is None
                    and started.claim is None
                    for other in waiting.values()
                    if world.jobs[other.job_id].claim is None
                )
        stop_all(world)

    assert inversions == 0
    assert world.faults == []


def test_two_projects_and_best_effort_do_not_play_ping_pong() -> None:
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    world.set_rules(
        (
            QuotaView(project="red", guaranteed_gpus=8),
            QuotaView(project="blue", guaranteed_gpus=8),
        )
    )
    chance = random.Random(3)
    for number in range(150):
        world.submit(
            job(
                f"j{number}",
                1,
                chance.choice((1, 4, 8)),
                project=("red", "blue", "free")[number % 3],
                limit_ms=chance.choice((1, 3, 10)) * HOUR_MS,
                submit_ms=world.now_ms,
                waiting_since_ms=world.now_ms,
            )
        )
        world.advance(10 * MINUTE_MS)
        stop_all(world)
        for one in [one for one in world.jobs.values() if one.placement]:
            if one.limit_ms and world.now_ms >= one.started_ms + one.limit_ms - one.served_ms:
                world.end(one.job_id)

    assert world.evictions
    assert max(world.evictions.values()) <= world.policy.evictions_max
    assert world.faults == []


@pytest.mark.parametrize("seed", range(4))
def test_victims_that_finish_at_different_times_steal_nothing_back(seed: int) -> None:
    cluster = Cluster(num_nodes=4, gpus_per_node=8)
    jobs = make_trace(num_jobs=250, cluster=cluster, seed=20 + seed, load=1.4)
    given: Counter[str] = Counter()

    outcome = replay_core(
        jobs,
        cluster,
        step=step,
        state=State(explains=False),
        options=Options(
            stop_delay_ms=lambda job_id, eviction: crc32(f"{job_id}{eviction}".encode()) % 29_000
        ),
        observe=lambda now_ms, deltas, plan: given.update(
            type(one).__name__ for one in plan.decisions
        ),
    )

    assert given["Preempt"] > 0
    assert find_faults(outcome, resume_ms=60_000) == []


def test_preemption_does_not_become_a_storm() -> None:
    cluster = Cluster(num_nodes=4, gpus_per_node=8)
    jobs = make_trace(num_jobs=400, cluster=cluster, seed=9, load=1.5)

    outcome = replay_core(jobs, cluster, step=step, state=State(explains=False))

    evictions = Counter(run.job for run in outcome.runs if not run.is_last)
    assert max(evictions.values(), default=0) <= DEFAULT_POLICY.evictions_max
    assert sum(evictions.values()) <= 2.2 * len(jobs)


def test_no_depth_hides_a_job_that_can_start() -> None:
    world = World(is_checked=False, explains=False)
    for view in nodes_of(8):
        world.put_node(view)
    world.submit(job("j0", 1, 7, limit_ms=HOUR_MS, is_preemptible=False))
    world.settle()
    blocked = job("j1", 1, 8, limit_ms=HOUR_MS, priority=90)
    world.submit(
        *(
            dataclasses.replace(blocked, job_id=f"j{number}", sequence=number)
            for number in range(1, 100_001)
        )
    )
    world.submit(job("j200000", 1, 1, limit_ms=100 * HOUR_MS, priority=10))

    began = time.perf_counter()
    plan = world.run_pass()
    took_s = time.perf_counter() - began

    assert [one.job_id for one in plan.decisions if isinstance(one, Start)] == ["j200000"]
    assert took_s < 20  # 2 s on a machine with nothing else to do


def test_who_overruns_its_limit_neither_blocks_nor_breaks_a_guarantee_silently() -> None:
    world = World()
    world.put_node(node("n0", 8))
    world.submit(job("j0", 1, 8, limit_ms=HOUR_MS, is_preemptible=False))
    world.settle()
    world.submit(job("j1", 1, 8, limit_ms=HOUR_MS))
    world.advance(2 * MINUTE_MS)
    promise = world.jobs["j1"].reservation
    assert promise is not None

    world.advance(3 * HOUR_MS)

    later = world.jobs["j1"].reservation
    assert later is not None
    assert later.start_ms > world.now_ms - 20 * MINUTE_MS
    assert world.faults == []  # each time it was put off with a cause
    world.end("j0")
    world.settle()
    assert world.jobs["j1"].placement is not None


def test_a_job_without_a_limit_promises_nothing() -> None:
    world = World()
    world.put_node(node("n0", 8))
    world.submit(job("j0", 1, 8, is_preemptible=False))
    world.settle()

    world.submit(job("j1", 1, 8, limit_ms=HOUR_MS))
    world.advance(HOUR_MS)

    assert world.jobs["j1"].reservation is None


def test_best_fit_leaves_larger_domains_free_than_worst_fit() -> None:
    # A mix as in openb: most want one GPU or less, some a half or a whole node.
    chance = random.Random(5)
    sizes = chance.choices((1, 2, 4, 8), (70, 15, 10, 5), k=60)
    nodes, views = Nodes(), nodes_of(*[8] * 20)
    for view in views:
        nodes.put(view)
    worst = [8] * len(views)
    num_worst = 0

    placed = []
    for number, size in enumerate(sizes):
        wanted = shape(1, size)
        found = place(wanted, "default", nodes)
        if found is not None:
            placed.append(size)
            for share in found.shares:
                nodes.take(f"j{number}", share, wanted.per_worker, is_claim=False)
        emptiest = max(range(len(worst)), key=lambda at: worst[at])
        if worst[emptiest] >= size:
            worst[emptiest] -= size
            num_worst += size

    best = [nodes.by_id[view.node_id].free_gpus for view in views]
    assert sum(placed) >= num_worst
    assert sum(free == 8 for free in best) > sum(free == 8 for free in worst)


def test_a_guarantee_is_worth_a_whole_node_however_others_are_scattered() -> None:
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    world.set_rules((QuotaView(project="owner", guaranteed_gpus=8),))
    for number in range(16):
        world.submit(job(f"j{number}", project="guest", priority=90, limit_ms=100 * HOUR_MS))
    world.settle()
    world.submit(job("j50", 8, 1, project="owner", limit_ms=10 * HOUR_MS))

    world.advance(10 * MINUTE_MS)
    stop_all(world)
    world.settle()

    placement = world.jobs["j50"].placement
    assert placement is not None
    assert len(placement.shares) == 1
    assert world.faults == []


def test_a_herd_that_comes_back_at_once_is_placed_in_one_pass_and_nobody_twice() -> None:
    world = World(is_checked=False)
    for view in nodes_of(*[8] * 125):
        world.put_node(view)
    for number in range(1000):
        world.submit(job(f"j{number}", limit_ms=HOUR_MS))
    world.settle()
    assert len(world.starts) == 1000

    for number in range(1000):
        world.stop(f"j{number}", is_eviction=False)
    plan = world.run_pass()

    started = [one.job_id for one in plan.decisions if isinstance(one, Start)]
    assert len(started) == len(set(started)) == 1000
    assert world.faults == []


@pytest.mark.parametrize("jump_ms", [24 * HOUR_MS, -24 * HOUR_MS], ids=["forward", "back"])
def test_a_clock_that_jumps_breaks_nothing(jump_ms: int) -> None:
    world = World()
    for view in nodes_of(8, 8):
        world.put_node(view)
    for number in range(30):
        world.submit(job(f"j{number}", 1, 1 + number % 4, limit_ms=(1 + number % 5) * HOUR_MS))
    world.advance(5 * MINUTE_MS)

    world.now_ms += jump_ms
    world.settle()
    for number in range(30, 40):
        world.submit(job(f"j{number}", 1, 1, limit_ms=MINUTE_MS))
    world.settle()
    stop_all(world)
    for one in [one for one in world.jobs.values() if one.placement][:10]:
        world.end(one.job_id)
    world.settle()

    assert world.faults == []
    assert sum(1 for one in world.jobs.values() if one.placement) > 5


def test_an_acknowledgement_that_comes_twice_changes_nothing() -> None:
    world = World()
    world.put_node(node("n0", 8))
    world.submit(job("j0", 1, 8, limit_ms=HOUR_MS), job("j1", 1, 8, limit_ms=HOUR_MS))
    world.settle()

    world.end("j0")
    world.unseen += world.unseen
    world.settle()
    world.unseen += [delta for deltas, _ in world.log for delta in deltas]
    world.is_reliable = False
    world.settle()
    world.is_reliable = True

    assert [job_id for _, job_id in world.starts] == ["j0", "j1"]
    assert world.num_refused == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_restart_in_the_middle_goes_on_as_if_nothing_had_been(seed: int) -> None:
    world = live(Setup(num_nodes=3), make_events(seed, 80))

    other = State(world.policy)
    _, plan = step(other, [Observed(view=world.observe())], world.now_ms)

    moves = [one for one in plan.decisions if isinstance(one, Start | Preempt)]
    assert moves == []


def test_of_two_alike_the_one_that_came_long_before_is_never_passed() -> None:
    policy = DEFAULT_POLICY
    small, large = job("j1", 1, 1, limit_ms=HOUR_MS), job("j2", 1, 8, limit_ms=8 * HOUR_MS)
    octaves = 6  # 64 GPU-hours to one
    later_ms = octaves * policy.ageing_ms

    def key_of(view: JobView, submit_ms: int) -> int:
        one = dataclasses.replace(view, submit_ms=submit_ms)
        return estimate(one, measure_size(one.shape), 0, policy).key

    assert key_of(small, 0) < key_of(large, 0)
    assert key_of(small, later_ms - 10**9) < key_of(large, 0)
    assert key_of(small, later_ms + policy.ageing_ms // 512) > key_of(large, 0)
