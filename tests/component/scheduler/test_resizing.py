"""A job that is resized is placed, counted and waited for with its new size."""

from __future__ import annotations

from models import Job
from models.queries.attempts import ask_stop
from models.queries.jobs import record_event
from models.queries.resizing import take_size
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, ResourceRequest
from scheduler.core.states import JobState
from tests.worlds import World

PER_WORKER = ResourceRequest(gpus=1, cpus=1)


def _pass(world: World) -> None:
    for node_id in world.node_ids():
        world.hear(node_id)
    world.renew_leases()
    world.scheduler().run_once()


def _ask(world: World, job_id: str, num_workers: int) -> None:
    with world.database.write() as session:
        job = session.get_one(Job, job_id)
        job.resize_to = num_workers
        ask_stop(session, job, reason=Reason.RESIZING, now=world.now)


def test_a_job_comes_back_with_its_new_size_and_from_what_it_saved(world: World) -> None:
    world.add_node("n0", cpus=8, gpus=4)
    job_id = world.add_job(JobSpec(recipe="r", workers=2, resources=PER_WORKER))
    _pass(world)
    world.join(job_id)
    checkpoint_id = world.save(job_id, step=7)

    _ask(world, job_id, 3)
    _pass(world)
    assert world.job(job_id).num_workers == 2
    world.end(job_id, "stopped")
    _pass(world)

    job = world.job(job_id)
    first, second = world.attempts(job_id)
    assert (job.state, job.num_workers, job.evictions) == (JobState.STARTING, 3, 0)
    assert [len(part.ranks) for part in world.parts(first.id)] == [2]
    assert [len(part.ranks) for part in world.parts(second.id)] == [3]
    assert second.resume_checkpoint_id == checkpoint_id


def test_a_waiting_job_that_shrinks_is_placed_where_it_did_not_fit(world: World) -> None:
    world.add_node("n0", cpus=8, gpus=2)
    other = world.add_job(JobSpec(recipe="r", workers=1, resources=PER_WORKER, preemptible=False))
    _pass(world)
    job_id = world.add_job(JobSpec(recipe="r", workers=2, resources=PER_WORKER))
    _pass(world)
    assert world.job(job_id).state is JobState.QUEUED

    with world.database.write() as session:
        job = session.get_one(Job, job_id)
        take_size(job, 1, resume_sha256=None)
        record_event(session, job, "job.resized", now=world.now)
    _pass(world)

    assert world.job(job_id).state is JobState.STARTING
    assert world.job(other).state is JobState.STARTING


def test_a_job_that_grows_waits_and_others_may_have_what_it_left(world: World) -> None:
    world.add_node("n0", cpus=8, gpus=2)
    job_id = world.add_job(JobSpec(recipe="r", workers=1, resources=PER_WORKER))
    other = world.add_job(JobSpec(recipe="r", workers=1, resources=PER_WORKER, preemptible=False))
    _pass(world)
    world.join(job_id)

    _ask(world, job_id, 2)
    world.end(job_id, "stopped")
    _pass(world)

    job = world.job(job_id)
    assert job.state is JobState.QUEUED
    assert job.reason == Reason.INSUFFICIENT_RESOURCES
    world.end(other)
    _pass(world)
    assert world.job(job_id).state is JobState.STARTING


def test_places_that_were_kept_for_another_size_are_given_back(world: World) -> None:
    node_id = world.add_node("n0", cpus=8, gpus=2)
    job_id = world.add_job(JobSpec(recipe="r", workers=2, resources=PER_WORKER, hold=True))
    shares = [{"node_id": node_id, "num_workers": 2, "gpu_indices": [0, 1]}]
    until_ms = round(world.now.timestamp() * 1000) + 600_000
    world.change_job(job_id, claim={"shares": shares, "until_ms": until_ms})
    other = world.add_job(JobSpec(recipe="r", workers=1, resources=PER_WORKER))

    with world.database.write() as session:
        job = session.get_one(Job, job_id)
        take_size(job, 1, resume_sha256=None)
        record_event(session, job, "job.resized", now=world.now)
    kept = world.job(job_id).claim
    _pass(world)

    assert kept is None
    assert world.job(other).state is JobState.STARTING
