"""What keeps a job from starting although there is room: it says so, and starts when it is over."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from models import Project, Queue, Quota, UsageMonth
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, ResourceRequest
from scheduler.core.states import JobState
from tests.worlds import START, World

ONE_GPU = JobSpec(recipe="r", workers=1, resources=ResourceRequest(gpus=1))


@pytest.fixture(autouse=True)
def _room(world: World) -> None:
    world.add_node("n0", cpus=64, gpus=8)


def set_quota(world: World, **columns: object) -> str:
    """Set the quota of the project, and return the project's id."""
    with world.database.write() as session:
        project_id = session.scalars(select(Project.id)).one()
        stamps = {"created_at": START, "updated_at": START}
        session.add(Quota(project_id=project_id, **stamps, **columns))
        return project_id


def test_a_job_waits_for_those_it_depends_on_and_starts_when_the_last_has_succeeded(
    world: World,
) -> None:
    scheduler = world.scheduler()
    needed = [world.add_job(ONE_GPU), world.add_job(ONE_GPU)]
    job_id = world.add_job(JobSpec(recipe="r", depends_on=tuple(needed)))
    scheduler.run_once()
    job = world.job(job_id)
    assert (job.state, job.reason) == (JobState.PENDING, Reason.DEPENDENCY_NOT_MET)

    world.end(needed[0])
    scheduler.run_once()
    assert world.job(job_id).state is JobState.PENDING
    world.end(needed[1])
    scheduler.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_a_closed_queue_starts_nothing_until_it_is_opened(world: World) -> None:
    scheduler = world.scheduler()
    with world.database.write() as session:
        session.execute(update(Queue).values(is_open=False))
    job_id = world.add_job(ONE_GPU)
    scheduler.run_once()
    job = world.job(job_id)
    assert (job.state, job.reason) == (JobState.PENDING, Reason.QUEUE_CLOSED)
    assert "default" in job.message

    with world.database.write() as session:
        session.execute(update(Queue).values(is_open=True))
    scheduler.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_a_quota_lets_so_many_gpus_run_and_the_next_job_when_one_has_ended(world: World) -> None:
    set_quota(world, limit_gpus=2)
    scheduler = world.scheduler()
    first, second, third = (world.add_job(ONE_GPU) for _ in range(3))
    scheduler.run_once()
    job = world.job(third)
    assert (job.state, job.reason) == (JobState.QUEUED, Reason.QUOTA_REACHED)
    assert "2 GPUs" in job.message

    world.end(first)
    scheduler.run_once()

    assert world.job(third).state is JobState.STARTING
    assert world.job(second).state is JobState.STARTING


def test_a_quota_that_is_raised_counts_in_the_next_pass(world: World) -> None:
    set_quota(world, limit_gpus=0)
    scheduler = world.scheduler()
    job_id = world.add_job(ONE_GPU)
    scheduler.run_once()
    assert world.job(job_id).reason == Reason.QUOTA_REACHED

    with world.database.write() as session:
        session.execute(update(Quota).values(limit_gpus=1))
    scheduler.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_a_spent_budget_holds_back_until_the_next_month(world: World) -> None:
    project_id = set_quota(world, gpu_hours_per_month=1.0)
    with world.database.write() as session:
        session.add(
            UsageMonth(
                project_id=project_id,
                user_id="",
                month="2030-01",
                gpu_ms=3_600_000,
                cpu_ms=0,
                num_attempts=1,
            )
        )
    scheduler = world.scheduler()
    job_id = world.add_job(ONE_GPU)
    scheduler.run_once()
    assert world.job(job_id).reason == Reason.BUDGET_SPENT

    world.now = START.replace(month=2) + timedelta(seconds=1)
    for node_id in world.node_ids():
        world.hear(node_id)
    scheduler.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_a_job_without_gpus_needs_neither_quota_nor_budget(world: World) -> None:
    set_quota(world, limit_gpus=0, gpu_hours_per_month=0.0)
    job_id = world.add_job(JobSpec(recipe="r", workers=1, resources=ResourceRequest(gpus=0)))

    world.scheduler().run_once()

    assert world.job(job_id).state is JobState.STARTING


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        pytest.param({"request_gpu_models": ["A100"]}, None, id="another model"),
        pytest.param({"request_gpu_memory_mib": 80_000}, None, id="more memory"),
        pytest.param({"request_gpu_models": ["H100"]}, JobState.STARTING, id="what is there"),
    ],
)
def test_a_job_goes_only_where_its_gpus_are(
    world: World, columns: dict[str, object], want: JobState | None
) -> None:
    gpu = {"index": 0, "model": "H100", "memory_mib": 40_000}
    capacity = {"cpu_milli": 8000, "memory_mib": 8192, "gpus": [gpu]}
    world.change_node("n0", capacity=capacity)
    job_id = world.add_job(ONE_GPU, **columns)

    world.scheduler().run_once()

    job = world.job(job_id)
    assert job.state is (want or JobState.QUEUED)
    assert want is not None or job.reason == Reason.GPU_UNAVAILABLE
