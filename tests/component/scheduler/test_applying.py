"""Decisions on rows: what each writes, and that one that does not fit dies alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from models import Attempt, Event, Job
from scheduler.core.cluster import Claim, NodeShare, Placement, Reservation
from scheduler.core.decisions import (
    Admit,
    Decision,
    Explain,
    Hold,
    Keep,
    Preempt,
    Reserve,
    Start,
)
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, ResourceRequest
from scheduler.core.states import AttemptState, JobState
from scheduler.shell.apply import Applied, apply_decisions
from tests.worlds import SIGHT, START, World

ONE = JobSpec(recipe="r", workers=1)


def apply(world: World, *decisions: Decision) -> Applied:
    """Apply in one transaction."""
    with world.database.write() as session:
        return apply_decisions(session, decisions, now=world.now, lease=SIGHT.lease)


def placed(node_id: str, *gpu_indices: int, num_workers: int = 1) -> Placement:
    """Return a placement on one node."""
    share = NodeShare(node_id=node_id, num_workers=num_workers, gpu_indices=gpu_indices)
    return Placement(shares=(share,))


def last_event(world: World, job_id: str) -> Event:
    """Return what happened to the job last."""
    with world.database.read() as session:
        statement = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc())
        return session.scalars(statement.limit(1)).one()


def add_queued(world: World, spec: JobSpec = ONE, **columns: object) -> str:
    """Submit a job that may be placed."""
    return world.add_job(spec, **{"state": JobState.QUEUED, **columns})


def test_places_that_are_kept_are_in_the_row_and_in_the_history(world: World) -> None:
    job_id = add_queued(world)
    claim = Claim(placement=placed("node_a", 3), until_ms=7)

    apply(world, Keep(job_id=job_id, version=1, claim=claim))

    want = {
        "shares": [{"node_id": "node_a", "num_workers": 1, "gpu_indices": [3]}],
        "until_ms": 7,
    }
    assert world.job(job_id).claim == want
    event = last_event(world, job_id)
    assert (event.type, event.data) == ("job.places_kept", want)

    apply(world, Keep(job_id=job_id, version=2, claim=None))

    assert world.job(job_id).claim is None
    assert world.history(job_id)[-1] == "job.places_released"


def test_a_guarantee_and_all_that_becomes_of_it_is_recorded_with_cause_and_instants(
    world: World,
) -> None:
    job_id = add_queued(world)

    def reserve(version: int, start_ms: int | None, cause: str) -> tuple[str, dict[str, Any]]:
        given = None if start_ms is None else Reservation(start_ms=start_ms, node_ids=("node_a",))
        apply(world, Reserve(job_id=job_id, version=version, reservation=given, cause=cause))
        event = last_event(world, job_id)
        return event.type, event.data

    first = reserve(1, 10, "First")
    moved = reserve(2, 20, "Overrun")
    same = reserve(3, 20, "Overrun")
    withdrawn = reserve(3, None, "NotFirst")

    assert first == (
        "job.reserved",
        {"cause": "First", "start_ms": 10, "start_ms_before": None, "node_ids": ["node_a"]},
    )
    assert moved == (
        "job.reservation_moved",
        {"cause": "Overrun", "start_ms": 20, "start_ms_before": 10, "node_ids": ["node_a"]},
    )
    assert same == moved
    assert withdrawn == (
        "job.reservation_withdrawn",
        {"cause": "NotFirst", "start_ms": None, "start_ms_before": 20, "node_ids": []},
    )
    assert len(world.history(job_id)) == 4
    assert world.job(job_id).reservation is None


def test_a_start_ends_claim_and_reservation(world: World) -> None:
    node_id = world.add_node("n0", gpus=1)
    job_id = add_queued(
        world,
        claim={"shares": [], "until_ms": 1},
        reservation={"start_ms": 1, "node_ids": []},
    )

    apply(world, start(job_id, node_id, 0))

    job = world.job(job_id)
    assert (job.state, job.claim, job.reservation) == (JobState.STARTING, None, None)


def test_decisions_about_one_job_follow_each_other(world: World) -> None:
    node_id = world.add_node("n0", gpus=1)
    job_id = world.add_job(ONE)

    applied = apply(
        world,
        Admit(job_id=job_id, version=1, reason=Reason.WAITING_FOR_PLACEMENT, message=""),
        Keep(job_id=job_id, version=2, claim=None),  # changes nothing, so it writes no event
        Explain(job_id=job_id, version=3, reason=Reason.PREEMPTION_PENDING, message="m"),
        Start(job_id=job_id, version=4, placement=placed(node_id, 0)),
    )

    assert applied == Applied(num_started=1)
    assert world.history(job_id) == ["job.pending", "job.queued", "job.waiting", "job.starting"]


def test_an_attempt_goes_on_where_the_last_one_that_saved_was(world: World) -> None:
    node_id = world.add_node("n0", cpus=8, gpus=2)
    saved_id, fresh_id = world.add_job(ONE), world.add_job(ONE)
    scheduler = world.scheduler()
    scheduler.run_once()
    # Of the second attempt a smaller step counts: the work of the first was done anew.
    world.save(saved_id, step=50)
    world.end(saved_id, "stopped")
    scheduler.run_once()
    best_id = world.save(saved_id, step=20)
    world.end(saved_id, "stopped")
    world.end(fresh_id, "stopped")
    forked_id = add_queued(world, JobSpec(recipe="r", workers=1, resume_from=best_id))
    missing_id = add_queued(world, JobSpec(recipe="r", workers=1, resume_from="ckpt_gone"))
    world.change_node("n0", capacity={**(world.node(node_id).capacity or {}), "gpus": gpus(4)})

    scheduler.run_once()

    def resumes_from(job_id: str) -> str | None:
        return world.attempts(job_id)[-1].resume_checkpoint_id

    assert resumes_from(saved_id) == resumes_from(forked_id) == best_id
    assert resumes_from(fresh_id) is resumes_from(missing_id) is None
    assert last_event(world, forked_id).data["resumes_at_step"] == 20


def gpus(count: int) -> list[dict[str, int]]:
    """Return so many GPUs, as a node says them."""
    return [{"index": index} for index in range(count)]


def start(job_id: str, node_id: str, *gpu_indices: int) -> Start:
    """Return the start of a job that is as it was submitted."""
    return Start(job_id=job_id, version=1, placement=placed(node_id, *gpu_indices))


@pytest.mark.parametrize(
    "decide",
    [
        pytest.param(
            lambda job, _: Hold(job_id=job, version=2, reason="r", message=""), id="another version"
        ),
        pytest.param(
            lambda job, _: Admit(job_id=job, version=1, reason="r", message=""),
            id="an illegal transition",
        ),
        pytest.param(
            lambda _job, _: Hold(job_id="job_gone", version=1, reason="r", message=""),
            id="a job that is gone",
        ),
        pytest.param(lambda job, node: start(job, node, 7), id="a GPU that is not there"),
        pytest.param(lambda job, node: start(job, node, 0, 1), id="a GPU too many"),
        pytest.param(lambda job, _: start(job, "node_gone", 0), id="a node that is gone"),
        pytest.param(
            lambda job, _: Preempt(
                job_id=job, version=1, reason=Reason.PREEMPTING, for_job="j", lost_gpu_ms=0
            ),
            id="a victim that does not run",
        ),
    ],
)
def test_a_decision_that_does_not_fit_dies_alone(
    world: World, decide: Callable[[str, str], Decision]
) -> None:
    node_id = world.add_node("n0", cpus=8, gpus=2)
    bad_id, good_id = add_queued(world), add_queued(world)
    bad = decide(bad_id, node_id)

    applied = apply(world, bad, start(good_id, node_id, 1))

    assert applied == Applied(num_started=1, dropped=frozenset({bad.job_id}))
    assert world.job(bad_id).version == 1
    assert world.node(node_id).cpu_milli_used == 1000
    assert world.job(good_id).state is JobState.STARTING


@pytest.mark.parametrize("column", ["is_cordoned", "is_draining"])
def test_nothing_starts_on_a_node_that_was_closed_meanwhile(world: World, column: str) -> None:
    node_id = world.add_node("n0", gpus=1)
    job_id = add_queued(world)
    world.change_node("n0", **{column: True})

    applied = apply(world, start(job_id, node_id, 0))

    assert applied.dropped == {job_id}


def test_two_starts_of_one_batch_never_share_a_gpu_nor_overfill_a_node(world: World) -> None:
    node_id = world.add_node("n0", cpus=2, gpus=3)
    job_ids = [add_queued(world) for _ in range(4)]
    gpu_of = dict(zip(job_ids, (0, 0, 1, 2), strict=True))

    applied = apply(
        world,
        *(start(job_id, node_id, index) for job_id, index in gpu_of.items()),
    )

    # The second wants a GPU that the first has, the fourth a CPU that nobody has.
    assert applied == Applied(num_started=2, dropped=frozenset({job_ids[1], job_ids[3]}))
    assert world.node(node_id).cpu_milli_used == 2000


def test_rows_that_contradict_each_other_stop_their_own_job_only(world: World) -> None:
    node_id = world.add_node("n0", cpus=8, gpus=2)
    odd_id, good_id = add_queued(world), add_queued(world)
    with world.database.write() as session:
        # A live attempt of a job that waits: no row of ours looks so, and the index refuses more.
        session.add(
            Attempt(
                job_id=odd_id,
                number=1,
                epoch=1,
                state=AttemptState.LAUNCHING,
                created_at=START,
            )
        )

    applied = apply(
        world,
        start(odd_id, node_id, 0),
        start(good_id, node_id, 1),
    )

    assert applied == Applied(num_started=1, dropped=frozenset({odd_id}))
    assert world.job(good_id).state is JobState.STARTING
    assert (world.job(odd_id).version, world.job(odd_id).epoch) == (1, 0)


def test_a_batch_of_any_size_is_read_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.shell.job_rows.IDS_MAX", 2)
    spec = JobSpec(recipe="r", workers=1, resources=ResourceRequest(gpus=1))
    for number in range(3):
        world.add_node(f"n{number}", cpus=8, gpus=2)
    job_ids = [world.add_job(spec) for _ in range(7)]

    world.scheduler().run_once()

    states = [world.job(job_id).state for job_id in job_ids]
    assert states == [JobState.STARTING] * 6 + [JobState.QUEUED]


@pytest.mark.parametrize(
    "world", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
def test_a_job_that_somebody_is_changing_just_now_is_left_to_them(world: World) -> None:
    job_ids = [add_queued(world), add_queued(world)]
    is_changed, is_done = threading.Event(), threading.Event()

    def change() -> None:
        with world.database.write() as session:
            session.get_one(Job, job_ids[0]).priority = 1
            session.flush()
            is_changed.set()
            is_done.wait(30)

    thread = threading.Thread(target=change)
    thread.start()
    is_changed.wait(30)
    try:
        applied = apply(
            world,
            *(Hold(job_id=job_id, version=1, reason="Held", message="") for job_id in job_ids),
        )
    finally:
        is_done.set()
        thread.join(30)

    assert applied.dropped == {job_ids[0]}
    assert [world.job(job_id).state for job_id in job_ids] == [JobState.QUEUED, JobState.PENDING]
