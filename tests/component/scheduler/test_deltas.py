"""What has changed since the last look, as deltas."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from models import (
    Event,
    Node,
    Project,
    Queue,
    UsageShare,
)
from scheduler.core.cluster import (
    JobView,
)
from scheduler.core.deltas import (
    Delta,
    JobGone,
    JobSeen,
    NodeGone,
    NodeSeen,
    Observed,
    RulesSeen,
)
from scheduler.core.spec import JobSpec
from scheduler.core.states import JobState
from scheduler.shell.observer import Observer
from scheduler.shell.snapshot import hold_still
from tests.component.scheduler.passes import read_view, view_of
from tests.worlds import SIGHT, START, World

SECOND = timedelta(seconds=1)
ONE = JobSpec(recipe="r", workers=1)


class Watch:
    """An observer that has had its whole look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.observer = Observer(SIGHT)
        (first,) = self.look()
        assert isinstance(first, Observed)

    def look(self) -> list[Delta]:
        """Return what is new."""
        with self.world.database.read() as session:
            hold_still(session)
            return self.observer.look(session, now=self.world.now)


def test_where_nothing_has_changed_nothing_is_told(world: World) -> None:
    world.add_node("n0")
    world.add_job(ONE)
    world.scheduler().run_once()
    watch = Watch(world)

    world.now += SECOND
    world.hear(world.node_ids()[0])

    assert watch.look() == []


def test_a_changed_job_is_told_once_and_as_it_is(world: World) -> None:
    job_id = world.add_job(ONE)
    watch = Watch(world)

    world.change_job(job_id, priority=60)
    world.change_job(job_id, priority=70)

    (delta,) = watch.look()
    assert isinstance(delta, JobSeen)
    assert (delta.job.priority, delta.job.version) == (70, 3)
    assert watch.look() == []


def test_a_new_job_and_one_that_is_over_are_told(world: World) -> None:
    old_id = world.add_job(ONE)
    watch = Watch(world)

    new_id = world.add_job(ONE)
    world.change_job(old_id, state=JobState.PAUSED)

    seen, gone = sorted(watch.look(), key=lambda delta: isinstance(delta, JobGone))
    assert isinstance(seen, JobSeen)
    assert seen.job.job_id == new_id
    assert gone == JobGone(job_id=old_id, version=2)


def test_who_waited_for_a_job_that_has_succeeded_is_told_with_it(world: World) -> None:
    world.add_node("n0")
    first = world.add_job(ONE)
    second = world.add_job(JobSpec(recipe="r", depends_on=(first,)))
    world.scheduler().run_once()
    watch = Watch(world)

    world.end(first)

    told = {delta.job.job_id: delta.job for delta in watch.look() if isinstance(delta, JobSeen)}
    assert told[second].waits_for == ()


def test_an_event_that_is_committed_late_is_told_late(world: World) -> None:
    # As on PostgreSQL, where a transaction that was slow brings a smaller id than the last one.
    job_ids = [world.add_job(ONE) for _ in range(2)]
    with world.database.write() as session:
        late = session.scalars(select(Event).where(Event.job_id == job_ids[0])).one()
        kept = {column.name: getattr(late, column.name) for column in Event.__table__.columns}
        session.execute(delete(Event).where(Event.id == late.id))
    watch = Watch(world)

    with world.database.write() as session:
        session.add(Event(**kept))

    (delta,) = watch.look()
    assert isinstance(delta, JobSeen)
    assert delta.job.job_id == job_ids[0]


def test_when_events_have_vanished_all_is_looked_at(world: World) -> None:
    world.add_job(ONE)
    watch = Watch(world)

    with world.database.write() as session:
        session.execute(delete(Event))

    assert [type(delta) for delta in watch.look()] == [Observed]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.add_node("new"), id="a node that joins"),
        pytest.param(
            lambda world: world.change_node("n0", is_cordoned=True), id="a node that is cordoned"
        ),
        pytest.param(lambda world: world.forward(timedelta(seconds=17)), id="nodes fall silent"),
    ],
)
def test_nodes_are_told_when_they_differ(world: World, change: Callable[[World], object]) -> None:
    world.add_node("n0")
    watch = Watch(world)

    change(world)

    (delta,) = watch.look()
    assert isinstance(delta, NodeSeen)
    assert watch.look() == []


def test_a_node_that_was_removed_is_told(world: World) -> None:
    node_id = world.add_node("n0")
    watch = Watch(world)

    with world.database.write() as session:
        session.execute(delete(Node))

    assert watch.look() == [NodeGone(node_id=node_id)]


def test_the_first_gpu_of_a_pool_changes_what_its_jobs_ask_for(world: World) -> None:
    job_id = world.add_job(ONE)
    watch = Watch(world)

    world.add_node("n0", gpus=1)

    (whole,) = watch.look()
    assert isinstance(whole, Observed)
    (job,) = whole.view.jobs
    assert (job.job_id, job.shape.num_gpus) == (job_id, 1)


def test_progress_is_told_every_ten_seconds_and_only_where_there_is_any(world: World) -> None:
    world.add_node("n0", cpus=4)
    moving, resting = world.add_job(ONE), world.add_job(ONE)
    world.scheduler().run_once()
    watch = Watch(world)

    world.progress(moving, step=1, total_steps=2, steps_per_second=1.0)
    assert watch.look() == []
    world.now += timedelta(seconds=10)

    (delta,) = watch.look()
    assert isinstance(delta, JobSeen)
    assert (delta.job.job_id, delta.job.remaining_ms) == (moving, 1000)
    assert resting != moving


def test_what_somebody_sets_is_told_at_once_and_usage_every_ten_seconds(world: World) -> None:
    watch = Watch(world)
    with world.database.write() as session:
        project_id = session.scalars(select(Project.id)).one()
        session.add(UsageShare(project_id=project_id, user_id="", gpu_ms=7, as_of_at=START))
    assert watch.look() == []

    with world.database.write() as session:
        session.execute(update(Queue).values(is_open=False))
    (rules,) = watch.look()
    assert isinstance(rules, RulesSeen)
    assert not rules.queues[0].is_open
    assert rules.usage

    with world.database.write() as session:
        session.execute(update(UsageShare).values(gpu_ms=8))
    assert watch.look() == []
    world.now += timedelta(seconds=10)
    (rules,) = watch.look()
    assert isinstance(rules, RulesSeen)
    assert rules.usage[0].gpu_ms == 8


def test_a_job_that_is_doubted_is_told_as_it_is(world: World) -> None:
    job_id = world.add_job(ONE)
    watch = Watch(world)

    watch.observer.doubt([job_id, "job_that_never_was"])

    told = watch.look()
    assert [type(delta) for delta in told] == [JobSeen, JobGone]
    assert watch.look() == []


def test_every_minute_all_is_looked_at(world: World) -> None:
    watch = Watch(world)
    with world.database.write() as session:
        session.execute(update(Queue).values(is_open=False))

    world.now += timedelta(seconds=60)

    assert [type(delta) for delta in watch.look()] == [Observed]


def test_a_clock_that_goes_back_makes_everything_be_looked_at(world: World) -> None:
    watch = Watch(world)

    world.now -= SECOND

    assert [type(delta) for delta in watch.look()] == [Observed]


def test_a_view_by_deltas_is_the_view_at_once(world: World) -> None:
    world.add_node("n0")
    watch = Watch(world)
    told: dict[str, JobView] = {}

    for number in range(3):
        job_id = world.add_job(ONE, name=f"job-{number}")
        world.scheduler().run_once()
        for delta in watch.look():
            if isinstance(delta, JobSeen):
                told[delta.job.job_id] = delta.job
        assert told[job_id] == view_of(world, job_id)

    assert sorted(told.values(), key=lambda job: job.job_id) == list(read_view(world).jobs)
