"""Making room: victims save and go, and come back, whatever is lost, doubled or late meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select

from models import Event, Job
from models.queries.attempts import ask_stop
from models.queries.jobs import advance_job
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, ResourceRequest
from scheduler.core.states import AttemptState, JobEvent, JobState
from scheduler.shell.loop import Scheduler
from tests.component.scheduler.passes import read_view
from tests.worlds import World

TWO_GPUS = ResourceRequest(gpus=2)
LOW = JobSpec(recipe="r", workers=1, resources=TWO_GPUS, priority=10)
HIGH = JobSpec(recipe="r", workers=1, resources=TWO_GPUS, priority=90)
# Longer than a job has to wait before others are disturbed for it.
PATIENCE = timedelta(minutes=5)


class Scene:
    """A node of two GPUs, a job that runs on them, and one of higher priority that waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.node_id = world.add_node("n0", cpus=8, gpus=2)
        self.low = world.add_job(LOW)
        self.scheduler = world.scheduler()
        self.scheduler.run_once()
        world.join(self.low)
        self.high = world.add_job(HIGH)

    def later(self, by: timedelta = PATIENCE, scheduler: Scheduler | None = None) -> None:
        """Let time pass, in which node and supervisors are heard, and make a pass."""
        self.world.now += by
        self.world.hear(self.node_id)
        self.world.renew_leases()
        (scheduler or self.scheduler).run_once()

    def preempt(self) -> None:
        """Let the one ask the other to go."""
        self.later()
        assert self.world.job(self.low).state is JobState.STOPPING

    def states(self) -> tuple[JobState, JobState]:
        """Return where the low and the high job are."""
        return self.world.job(self.low).state, self.world.job(self.high).state


@pytest.fixture
def scene(world: World) -> Scene:
    """A scene in which nobody has waited yet."""
    return Scene(world)


def test_a_victim_is_asked_to_save_and_the_event_says_for_whom_and_at_what_cost(
    scene: Scene,
) -> None:
    scene.preempt()

    low = scene.world.job(scene.low)
    assert (low.reason, low.stop_reason) == (Reason.PREEMPTING, Reason.PREEMPTING)
    with scene.world.database.read() as session:
        event = session.scalars(
            select(Event).where(Event.job_id == scene.low).order_by(Event.seq.desc()).limit(1)
        ).one()
    assert event.type == "job.stopping"
    assert event.data["for_job"] == scene.high
    assert event.data["lost_gpu_ms"] >= 2 * PATIENCE / timedelta(milliseconds=1)


def test_a_preempted_job_waits_again_and_goes_on_from_its_checkpoint(scene: Scene) -> None:
    checkpoint_id = scene.world.save(scene.low, step=100)
    scene.preempt()

    scene.world.end(scene.low, "stopped")
    low = scene.world.job(scene.low)
    assert (low.state, low.reason, low.evictions) == (JobState.PENDING, Reason.PREEMPTED, 1)
    scene.later(timedelta(seconds=1))
    assert scene.states() == (JobState.QUEUED, JobState.STARTING)
    scene.world.end(scene.high)
    scene.later(timedelta(seconds=1))

    assert scene.states() == (JobState.STARTING, JobState.SUCCEEDED)
    _, second = scene.world.attempts(scene.low)
    assert second.resume_checkpoint_id == checkpoint_id
    assert scene.world.job(scene.low).user_failures == 0
    assert scene.world.job(scene.low).infra_failures == 0


def test_a_claim_keeps_what_victims_leave_and_survives_a_restart(scene: Scene) -> None:
    scene.preempt()
    claim = scene.world.job(scene.high).claim
    assert claim is not None
    assert claim["shares"] == [{"node_id": scene.node_id, "num_workers": 1, "gpu_indices": [0, 1]}]

    # Smaller, of equal priority and there first: it would fit as soon as the victim has gone.
    small = scene.world.add_job(
        JobSpec(recipe="r", workers=1, resources=ResourceRequest(gpus=1), priority=90)
    )
    restarted = scene.world.scheduler()
    restarted.run_once()
    scene.world.end(scene.low, "stopped")
    restarted.run_once()

    assert scene.world.job(scene.high).state is JobState.STARTING
    assert scene.world.job(scene.high).claim is None
    assert scene.world.job(small).state is JobState.QUEUED


def test_a_victim_that_never_stops_is_lost_in_the_end_and_its_places_are_given(
    scene: Scene,
) -> None:
    scene.preempt()

    # Nothing renews its lease any more: the supervisor is gone or hangs.
    scene.world.now += timedelta(seconds=61)
    scene.world.hear(scene.node_id)
    scene.scheduler.run_once()
    scene.scheduler.run_once()

    assert scene.states()[1] is JobState.STARTING
    lost, *_ = scene.world.attempts(scene.low)
    assert lost.state is AttemptState.LOST
    assert scene.world.job(scene.low).state.has_attempt is False


def test_a_victim_that_stops_after_the_claim_has_lapsed_changes_nothing_but_latency(
    scene: Scene,
) -> None:
    scene.preempt()

    for _ in range(4):
        scene.later(timedelta(minutes=1))
    assert scene.states() == (JobState.STOPPING, JobState.QUEUED)
    scene.world.end(scene.low, "stopped")
    scene.later(timedelta(seconds=1))

    assert scene.states()[1] is JobState.STARTING
    assert scene.world.job(scene.low).evictions == 1


def test_a_stop_is_asked_once_however_many_passes_see_the_victim(scene: Scene) -> None:
    scene.preempt()

    for _ in range(3):
        scene.later(timedelta(seconds=1))
        scene.world.scheduler().run_once()

    assert scene.world.history(scene.low).count("job.stopping") == 1


def test_an_end_that_is_reported_while_the_pass_decides_makes_the_stop_stale(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    between(monkeypatch, lambda: scene.world.end(scene.low))

    scene.later()

    assert scene.states() == (JobState.SUCCEEDED, JobState.QUEUED)
    scene.later(timedelta(seconds=1))
    assert scene.states() == (JobState.SUCCEEDED, JobState.STARTING)


def test_nobody_goes_for_a_job_that_was_cancelled_while_the_pass_decided(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    between(monkeypatch, lambda: cancel(scene.world, scene.high))

    scene.later()

    assert scene.states() == (JobState.RUNNING, JobState.CANCELLED)
    assert scene.world.job(scene.low).evictions == 0
    scene.later(timedelta(seconds=1))
    assert scene.states() == (JobState.RUNNING, JobState.CANCELLED)


def test_a_user_who_pauses_the_victim_is_obeyed(scene: Scene) -> None:
    scene.preempt()

    with scene.world.database.write() as session:
        job = session.get_one(Job, scene.low)
        ask_stop(session, job, reason=Reason.PAUSE_REQUESTED, now=scene.world.now)
    scene.later(timedelta(seconds=1))
    scene.world.end(scene.low, "stopped")
    scene.later(timedelta(seconds=1))

    assert scene.states() == (JobState.PAUSED, JobState.STARTING)


def test_a_pass_that_dies_after_its_decisions_were_written_is_taken_up_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.shell.observer.Observer.doubt", _die)
        with pytest.raises(RuntimeError, match="killed"):
            scene.later()
    assert scene.states() == (JobState.STOPPING, JobState.QUEUED)
    before = scene.world.history(scene.low)

    scene.scheduler.run_once()
    scene.world.scheduler().run_once()
    assert scene.world.history(scene.low) == before
    scene.world.end(scene.low, "stopped")
    scene.scheduler.run_once()

    assert scene.states()[1] is JobState.STARTING


def test_two_schedulers_that_both_believe_to_lead_evict_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.shell.loop.Scheduler._leads", lambda *_: True)
    other = scene.world.scheduler("b")
    other.run_once()
    # Both look before either of them writes.
    between(monkeypatch, lambda: scene.later(timedelta(0), other))

    scene.later()

    assert scene.states() == (JobState.STOPPING, JobState.QUEUED)
    assert scene.world.history(scene.low).count("job.stopping") == 1
    scene.world.end(scene.low, "stopped")
    for scheduler in (other, scene.scheduler):
        scheduler.run_once()
    assert scene.states()[1] is JobState.STARTING
    assert scene.world.job(scene.low).evictions == 1


def test_the_core_sees_what_the_rows_say_of_victim_and_preemptor(scene: Scene) -> None:
    scene.preempt()

    jobs = {job.job_id: job for job in read_view(scene.world).jobs}

    assert jobs[scene.low].stop_reason == Reason.PREEMPTING
    claim = jobs[scene.high].claim
    assert claim is not None
    assert claim.placement == jobs[scene.low].placement


def between(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Let `do` happen once, after the next pass has looked and before it writes."""
    apply = Scheduler._apply
    todo = [do]

    def apply_late(self: Scheduler, *arguments: object) -> int:
        if todo:
            todo.pop()()
        return apply(self, *arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(Scheduler, "_apply", apply_late)


def cancel(world: World, job_id: str) -> None:
    """Cancel a waiting job, as its user does."""
    with world.database.write() as session:
        job = session.get_one(Job, job_id)
        advance_job(session, job, JobEvent.CANCELLED, reason="CancelledByUser", now=world.now)


def _die(*_: object) -> None:
    raise RuntimeError("killed")
