"""Explanations follow the rows, beside a scheduler that acts on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from scheduler.core.calibration import Interval
from scheduler.core.explain import Running, Waiting
from scheduler.core.forecast import Unknown
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, Limits, Parallel
from scheduler.shell.oracle import Oracle
from tests.worlds import SIGHT, World

TIMED = JobSpec(recipe="r", workers=2, limits=Limits(wall_seconds=3600))


def open_oracle(world: World) -> Oracle:
    """Return an oracle that takes its time."""
    return Oracle(world.database, SIGHT, patience_s=60)


def ask(world: World, oracle: Oracle, job_id: str) -> Waiting | Running | None:
    """Return what is said of a job as it is now."""
    return oracle.explain(job_id, version=world.job(job_id).version, now=world.now)


def let_end(world: World, count: int) -> None:
    """Let jobs run for half an hour each, one after the other."""
    scheduler = world.scheduler()
    for _ in range(count):
        job_id = world.add_job(TIMED)
        scheduler.run_once()
        world.join(job_id)
        world.forward(timedelta(minutes=30))
        world.end(job_id)
        for node_id in world.node_ids():
            world.hear(node_id)


def test_it_knows_how_long_ended_jobs_took(world: World) -> None:
    world.add_node("n0")
    let_end(world, 12)
    scheduler = world.scheduler()
    running = world.add_job(TIMED)
    scheduler.run_once()
    waiting = world.add_job(TIMED)
    oracle = open_oracle(world)

    holds, waits = ask(world, oracle, running), ask(world, oracle, waiting)

    assert isinstance(holds, Running)
    assert isinstance(waits, Waiting)
    # Jobs of this name have taken half an hour.
    assert (holds.basis, isinstance(waits.start, Interval)) == ("history", True)


def test_what_has_changed_is_seen_and_what_has_ended_is_nobodys_concern(world: World) -> None:
    world.add_node("n0")
    oracle = open_oracle(world)
    job_id = world.add_job(JobSpec(recipe="r", workers=2, hold=True))

    held = ask(world, oracle, job_id)
    world.change_job(job_id, is_held=False)
    released = ask(world, oracle, job_id)
    world.scheduler().run_once()
    started = ask(world, oracle, job_id)
    world.end(job_id)
    world.forward(timedelta(seconds=2))
    ended = ask(world, oracle, job_id)

    assert isinstance(held, Waiting)
    assert held.reason == Reason.HELD_BY_USER
    assert isinstance(released, Waiting)
    assert released.reason == Reason.WAITING_FOR_PLACEMENT
    assert isinstance(started, Running)
    assert ended is None


@pytest.mark.parametrize("whole", [False, True], ids=["by what has changed", "all anew"])
def test_it_learns_from_the_jobs_that_were_asked_about(world: World, whole: bool) -> None:
    world.add_node("n0")
    let_end(world, 12)
    first = world.add_job(TIMED)
    scheduler = world.scheduler()
    scheduler.run_once()
    second = world.add_job(TIMED)
    oracle = open_oracle(world)
    ask(world, oracle, second)

    world.end(first)
    world.forward(timedelta(minutes=20 if whole else 1))
    for node_id in world.node_ids():
        world.hear(node_id)
    scheduler.run_once()
    ask(world, oracle, second)

    assert oracle.calibration.num_judged == 1


def test_asking_writes_nothing_and_disturbs_no_pass(world: World) -> None:
    world.add_node("n0")
    jobs = [world.add_job(TIMED, name=f"job-{number}") for number in range(3)]
    oracle, scheduler = open_oracle(world), world.scheduler()
    before = [world.job(job_id).version for job_id in jobs]

    for job_id in jobs:
        ask(world, oracle, job_id)
    after = [world.job(job_id).version for job_id in jobs]
    scheduler.run_once()

    assert before == after
    assert isinstance(ask(world, oracle, jobs[0]), Running)


def test_many_may_ask_at_once(world: World) -> None:
    world.add_node("n0")
    jobs = [world.add_job(TIMED, name=f"job-{number}") for number in range(6)]
    oracle = open_oracle(world)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda job_id: ask(world, oracle, job_id), jobs * 3))

    assert all(isinstance(one, Waiting) for one in said)
    assert said[:6] == said[6:12]


def test_after_a_failure_everything_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_node("n0")
    oracle = open_oracle(world)
    job_id = world.add_job(TIMED)

    with monkeypatch.context() as patched:
        patched.setattr("scheduler.shell.oracle.follow", _fail)
        with pytest.raises(RuntimeError):
            ask(world, oracle, job_id)

    assert isinstance(ask(world, oracle, job_id), Waiting)


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        pytest.param(JobSpec(recipe="r", workers=4), {2}, id="any halving"),
        pytest.param(
            JobSpec(recipe="r", workers=4, parallel=Parallel(data=2, tensor=2)),
            {2},
            id="half of the replicas",
        ),
        pytest.param(
            JobSpec(recipe="r", workers=4, parallel=Parallel(tensor=4)), set(), id="one replica"
        ),
    ],
)
def test_only_layouts_that_can_be_are_offered(world: World, spec: JobSpec, want: set[int]) -> None:
    world.add_node("n0")
    world.add_node("n1", cpus=1)
    oracle = open_oracle(world)

    said = oracle.simulate(
        spec, project_id="", project="default", user="", waits_for=(), now=world.now
    )

    assert isinstance(said.start, Unknown)
    assert {one.change["workers"] for one in said.options if "workers" in one.change} == want


def _fail(*_: object) -> None:
    raise RuntimeError("planned")
