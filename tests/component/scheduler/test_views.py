"""What the scheduler sees: rows of jobs, nodes and rules as views."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from models import (
    Job,
    Project,
    Queue,
    Quota,
    UsageMonth,
    UsageShare,
)
from scheduler.core.cluster import (
    Claim,
    NodeShare,
    Placement,
    QueueView,
    QuotaView,
    Reservation,
    UsageView,
)
from scheduler.core.spec import JobSpec, Limits, ResourceRequest
from scheduler.core.states import JobState
from tests.component.scheduler.passes import read_view, view_of
from tests.worlds import START, World

START_MS = round(START.timestamp() * 1000)
SECOND = timedelta(seconds=1)
ONE = JobSpec(recipe="r", workers=1)


def test_a_waiting_job_is_seen_with_all_that_its_row_says(world: World) -> None:
    world.add_node("n0", gpus=2)
    spec = JobSpec(
        recipe="r",
        workers=3,
        resources=ResourceRequest(gpus=1, cpus=2.5, memory_gib=1.5),
        limits=Limits(wall_seconds=60, grace_seconds=7),
        preemptible=False,
        priority=70,
    )
    claim = {
        "shares": [{"node_id": "node_a", "num_workers": 3, "gpu_indices": [1, 2, 4]}],
        "until_ms": 5,
    }
    job_id = world.add_job(
        spec,
        name="mine",
        request_gpu_models=["H100"],
        request_gpu_memory_mib=4096,
        may_spread=True,
        served_ms=11,
        deadline_served_ms=4,
        evictions=2,
        waiting_since_at=START + SECOND,
        claim=claim,
        reservation={"start_ms": 9, "node_ids": ["node_b"]},
    )

    job = view_of(world, job_id)

    shape = job.shape
    assert (job.project, job.user, job.name, job.queue) == ("default", "", "mine", "default")
    assert (shape.num_workers, shape.per_worker.num_gpus) == (3, 1)
    assert (shape.per_worker.cpu_milli, shape.per_worker.memory_mib) == (2500, 1536)
    assert (shape.gpu_models, shape.gpu_memory_mib, shape.may_spread) == (("H100",), 4096, True)
    assert (job.limit_ms, job.grace_ms, job.is_preemptible, job.priority) == (
        60_000 + 11 - 4,  # what a retry left behind does not count
        7000,
        False,
        70,
    )
    assert (job.submit_ms, job.waiting_since_ms) == (START_MS, START_MS + 1000)
    assert (job.served_ms, job.evictions, job.placement) == (11, 2, None)
    share = NodeShare(node_id="node_a", num_workers=3, gpu_indices=(1, 2, 4))
    assert job.claim == Claim(placement=Placement(shares=(share,)), until_ms=5)
    assert job.reservation == Reservation(start_ms=9, node_ids=("node_b",))


def test_a_spec_that_leaves_things_out_is_seen_with_the_defaults(world: World) -> None:
    job_id = world.add_job(spec=ONE)
    with world.database.write() as session:
        session.execute(update(Job).values(spec={}))

    job = view_of(world, job_id)

    assert (job.limit_ms, job.grace_ms, job.is_preemptible) == (None, 30_000, True)


def test_a_running_job_is_seen_with_its_places_its_progress_and_its_last_save(
    world: World,
) -> None:
    nodes = [world.add_node(name, cpus=8, gpus=2) for name in ("n0", "n1")]
    job_id = world.add_job(JobSpec(recipe="r", workers=2, resources=ResourceRequest(gpus=2)))
    world.scheduler().run_once()
    world.join(job_id)
    world.now += SECOND
    world.save(job_id, step=10)
    world.now += SECOND
    world.renew_leases()
    world.progress(job_id, step=40, total_steps=100, steps_per_second=8.0)

    job = view_of(world, job_id)

    (attempt,) = world.attempts(job_id)
    order = [part.node_id for part in world.parts(attempt.id)]
    assert sorted(order) == sorted(nodes)
    assert job.placement == Placement(
        shares=tuple(
            NodeShare(node_id=node_id, num_workers=1, gpu_indices=(0, 1)) for node_id in order
        )
    )
    assert (job.started_ms, job.saved_ms) == (START_MS, START_MS + 1000)
    assert (job.remaining_ms, job.measured_ms) == (7500, START_MS + 2000)


@pytest.mark.parametrize(
    "progress",
    [
        pytest.param({"step": 4, "total_steps": None, "steps_per_second": 1.0}, id="no end"),
        pytest.param({"step": 4, "total_steps": 9, "steps_per_second": None}, id="no speed"),
        pytest.param({"step": 4, "total_steps": 9, "steps_per_second": 0.0}, id="it stands still"),
    ],
)
def test_what_remains_is_not_known(world: World, progress: dict[str, float | None]) -> None:
    world.add_node("n0")
    job_id = world.add_job(ONE)
    world.scheduler().run_once()
    world.progress(job_id, **progress)

    assert view_of(world, job_id).remaining_ms is None


def test_a_checkpoint_of_an_earlier_attempt_is_no_save_of_this_one(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job(ONE)
    scheduler = world.scheduler()
    scheduler.run_once()
    world.save(job_id, step=1)
    world.end(job_id, "stopped")
    scheduler.run_once()

    job = view_of(world, job_id)

    assert job.placement is not None
    assert job.saved_ms is None


def test_jobs_that_are_paused_or_over_are_not_seen(world: World) -> None:
    seen = {state: world.add_job(ONE, state=state) for state in (JobState.PENDING, JobState.QUEUED)}
    for state in (JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        world.add_job(ONE, state=state)

    assert [job.job_id for job in read_view(world).jobs] == sorted(seen.values())


def test_only_needed_jobs_that_have_not_succeeded_are_waited_for(world: World) -> None:
    done = world.add_job(ONE, state=JobState.SUCCEEDED)
    open_ids = [world.add_job(ONE), world.add_job(ONE)]
    job_id = world.add_job(JobSpec(recipe="r", depends_on=(done, *open_ids)))

    assert view_of(world, job_id).waits_for == tuple(sorted(open_ids))


def test_history_is_the_median_of_what_jobs_like_it_took(world: World) -> None:
    def past(**columns: object) -> None:
        values = {"name": "a", "state": JobState.SUCCEEDED, "finished_at": START}
        world.add_job(ONE, **{**values, **columns})

    for served_ms in (10, 30, 20):
        past(served_ms=served_ms)
    past(served_ms=1, name="b")
    past(served_ms=1, recipe="another")
    past(served_ms=1, created_by="key_1")
    past(served_ms=1, state=JobState.FAILED)
    past(served_ms=1, finished_at=START - timedelta(days=31))
    past(served_ms=1, finished_at=START + SECOND)
    known, unknown = world.add_job(ONE, name="a"), world.add_job(ONE, name="c")

    assert view_of(world, known).history_ms == 20
    assert view_of(world, unknown).history_ms is None


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        pytest.param({}, "", id="an idle node is open"),
        pytest.param({"is_cordoned": True}, "cordoned", id="cordoned"),
        pytest.param({"is_draining": True, "is_cordoned": True}, "draining", id="draining"),
        pytest.param({"quarantined_until": START + SECOND}, "quarantined", id="quarantined"),
        pytest.param({"quarantined_until": START}, "", id="a quarantine that is over"),
        pytest.param({"heartbeat_at": START - timedelta(seconds=17)}, "silent", id="silent"),
    ],
)
def test_a_node_says_why_it_is_closed(world: World, columns: dict[str, Any], want: str) -> None:
    world.add_node("n0", **columns)

    (node,) = read_view(world).nodes

    assert node.closed_reason == want


def test_a_node_is_seen_with_its_rack_and_its_gpus(world: World) -> None:
    gpus = [
        {"index": 3, "model": "H100", "memory_mib": 81920},
        {"index": 5, "model": "H100", "memory_mib": 40960},
    ]
    capacity = {"cpu_milli": 1000, "memory_mib": 1, "gpus": gpus}
    world.add_node("n0", rack="r1", capacity=capacity)
    world.add_node("never heard", heartbeat_at=None)
    world.add_node("never said what it has", capacity=None)

    (node,) = read_view(world).nodes

    assert (node.rack, node.gpu_model, node.gpu_memory_mib) == ("r1", "H100", 40960)
    assert node.gpu_indices == (3, 5)


def test_quotas_usage_and_queues_are_seen_by_the_names_of_projects(world: World) -> None:
    with world.database.write() as session:
        project_id = session.scalars(select(Project.id)).one()
        stamps = {"created_at": START, "updated_at": START}
        session.add(
            Quota(project_id=project_id, guaranteed_gpus=4, gpu_hours_per_month=1.5, **stamps)
        )
        session.add(Quota(project_id=project_id, user_id="key_1", limit_gpus=2, weight=3, **stamps))
        for user, month, gpu_ms in (
            ("key_1", "2030-01", 10),
            ("key_2", "2030-01", 5),
            ("key_1", "2029-12", 99),
        ):
            session.add(
                UsageMonth(
                    project_id=project_id,
                    user_id=user,
                    month=month,
                    gpu_ms=gpu_ms,
                    cpu_ms=0,
                    num_attempts=1,
                )
            )
        session.add(UsageShare(project_id=project_id, user_id="", gpu_ms=7, as_of_at=START))
        session.add(Queue(name="late", pool="default", is_open=False, created_at=START))

    view = read_view(world)

    assert view.quotas == (
        QuotaView(project="default", guaranteed_gpus=4, budget_gpu_ms=5_400_000, spent_gpu_ms=15),
        QuotaView(project="default", user="key_1", limit_gpus=2, weight=3, spent_gpu_ms=10),
    )
    assert view.usage == (UsageView(project="default", user="", gpu_ms=7, as_of_ms=START_MS),)
    assert view.queues == (
        QueueView(name="default", pool="default"),
        QueueView(name="late", pool="default", is_open=False),
    )
