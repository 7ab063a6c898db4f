"""Passes over real rows: what is started, what is put right, and what two schedulers do."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from models import Allocation, Attempt, Job
from models.queries.attempts import ask_stop, end_attempt
from models.queries.jobs import JOBS_TOPIC, advance_job
from scheduler.core.decisions import Start
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd
from scheduler.core.spec import JobSpec, Limits, ResourceRequest, RetrySpec
from scheduler.core.states import AttemptState, JobEvent, JobState
from scheduler.shell.apply import Applied, apply_decisions
from tests.component.scheduler.passes import decide_anew
from tests.worlds import START, World

MINUTE = timedelta(minutes=1)
ONE = JobSpec(recipe="r", workers=1)


def test_a_submitted_job_is_started_with_its_slots_in_one_pass(world: World) -> None:
    node_id = world.add_node("n0", cpus=2)
    job_id = world.add_job()

    world.scheduler().run_once()

    job = world.job(job_id)
    (attempt,) = world.attempts(job_id)
    (part,) = world.parts(attempt.id)
    assert (job.state, job.epoch, attempt.epoch) == (JobState.STARTING, 1, 1)
    assert [rank["rank"] for rank in part.ranks] == [0, 1]
    assert part.lease_expires_at == START + MINUTE
    assert world.node(node_id).cpu_milli_used == 2000
    assert world.history(job_id) == ["job.pending", "job.queued", "job.starting"]


def test_a_gang_spreads_over_nodes_with_consecutive_ranks(world: World) -> None:
    for name in ("n0", "n1"):
        world.add_node(name, cpus=8, gpus=2)
    job_id = world.add_job(JobSpec(recipe="r", workers=2, resources=ResourceRequest(gpus=2)))

    world.scheduler().run_once()

    (attempt,) = world.attempts(job_id)
    ranks = [part.ranks for part in world.parts(attempt.id)]
    assert [[rank["rank"] for rank in part] for part in ranks] == [[0], [1]]
    assert [[rank["gpu_indices"] for rank in part] for part in ranks] == [[[0, 1]], [[0, 1]]]


def test_a_job_without_room_waits_and_says_why_once(world: World) -> None:
    world.add_node("n0", cpus=1)
    job_id = world.add_job()

    for _ in range(3):
        world.scheduler().run_once()

    assert world.job(job_id).reason == Reason.INSUFFICIENT_RESOURCES
    assert world.history(job_id) == ["job.pending", "job.queued", "job.waiting"]


def test_a_silent_node_gets_no_new_work(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job()
    world.now += timedelta(seconds=17)

    world.scheduler().run_once()

    assert world.job(job_id).reason == Reason.NO_NODES


def test_slots_come_back_when_the_attempt_ends(world: World) -> None:
    node_id = world.add_node("n0", cpus=2, gpus=2)
    job_id = world.add_job()
    world.scheduler().run_once()
    (attempt,) = world.attempts(job_id)

    with world.database.write() as session:
        end_attempt(
            session,
            session.get_one(Attempt, attempt.id),
            AttemptEnd(outcome="succeeded"),
            now=world.now,
        )

    assert world.job(job_id).state is JobState.SUCCEEDED
    assert world.node(node_id).cpu_milli_used == 0
    with world.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Allocation)) == 0
    assert world.history(job_id)[-2:] == ["job.finalizing", "job.succeeded"]


def test_a_lost_attempt_is_replaced_under_a_new_epoch(world: World) -> None:
    node_id = world.add_node("n0")
    job_id = world.add_job()
    scheduler = world.scheduler()
    scheduler.run_once()

    world.now += timedelta(seconds=61)
    world.hear(node_id)
    scheduler.run_once()
    job = world.job(job_id)
    assert (job.state, job.reason) == (JobState.PENDING, Reason.RETRY_BACKOFF)
    world.now += timedelta(seconds=10)
    scheduler.run_once()

    lost, fresh = world.attempts(job_id)
    assert (lost.state, lost.reason) == (AttemptState.LOST, Reason.LEASE_LOST)
    assert (fresh.state, fresh.epoch) == (AttemptState.LAUNCHING, 2)
    assert world.job(job_id).infra_failures == 1


def test_after_a_start_every_supervisor_gets_one_lease_to_report(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job()
    world.scheduler().run_once()
    world.now += timedelta(minutes=10)

    restarted = world.scheduler()
    restarted.run_once()
    assert world.job(job_id).state is JobState.STARTING
    world.now += MINUTE
    restarted.run_once()

    assert world.job(job_id).state is JobState.PENDING


def test_a_job_past_its_deadline_is_asked_to_stop(world: World) -> None:
    node_id = world.add_node("n0")
    job_id = world.add_job(JobSpec(recipe="r", workers=2, limits=Limits(wall_seconds=30)))
    scheduler = world.scheduler()
    scheduler.run_once()
    with world.database.write() as session:
        session.scalars(select(Attempt)).one().started_at = world.now

    world.now += timedelta(seconds=31)
    world.hear(node_id)
    scheduler.run_once()

    job = world.job(job_id)
    assert (job.state, job.stop_reason) == (JobState.STOPPING, Reason.DEADLINE_REACHED)


def test_the_scheduler_is_woken_when_there_may_be_something_to_place_and_not_else(
    world: World,
) -> None:
    world.add_node("n0")
    doorbell = world.database.doorbell
    rung: list[frozenset[str]] = []
    doorbell.listen(rung.append)

    job_id = world.add_job()
    after_submit = [JOBS_TOPIC in topics for topics in rung]
    world.scheduler().run_once()
    rung.clear()
    with world.database.write() as session:
        job = session.get_one(Job, job_id)
        advance_job(session, job, JobEvent.JOINED, reason=Reason.TRAINING, now=world.now)
    after_start = [JOBS_TOPIC in topics for topics in rung]
    rung.clear()
    with world.database.write() as session:
        attempt = session.scalars(select(Attempt)).one()
        end_attempt(session, attempt, AttemptEnd(outcome="succeeded"), now=world.now)
    after_end = [JOBS_TOPIC in topics for topics in rung]

    assert (after_submit, after_start, after_end) == ([True], [False], [True])


def test_a_draining_node_sends_its_jobs_away_without_blame(world: World) -> None:
    node_id = world.add_node("n0")
    job_id = world.add_job()
    scheduler = world.scheduler()
    scheduler.run_once()
    with world.database.write() as session:
        session.get_one(type(world.node(node_id)), node_id).is_draining = True

    scheduler.run_once()
    assert world.job(job_id).stop_reason == Reason.NODE_DRAINING
    (attempt,) = world.attempts(job_id)
    with world.database.write() as session:
        end = AttemptEnd(outcome="stopped", stop_reason=Reason.NODE_DRAINING)
        end_attempt(session, session.get_one(Attempt, attempt.id), end, now=world.now)

    job = world.job(job_id)
    assert (job.state, job.infra_failures, job.user_failures) == (JobState.PENDING, 0, 0)


def test_a_held_job_starts_after_its_release(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job(JobSpec(recipe="r", hold=True))
    scheduler = world.scheduler()
    scheduler.run_once()
    assert world.job(job_id).reason == Reason.HELD_BY_USER

    world.change_job(job_id, "job.released", is_held=False)
    scheduler.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_a_begin_time_is_waited_for_and_wakes_the_scheduler(world: World) -> None:
    world.add_node("n0")
    begin_at = START + timedelta(seconds=5)
    job_id = world.add_job(not_before_at=begin_at, not_before_reason="BeginTimeNotReached")
    scheduler = world.scheduler()

    wakeup_ms = scheduler.run_once()

    assert wakeup_ms == round(begin_at.timestamp() * 1000)
    world.now = begin_at
    scheduler.run_once()
    assert world.job(job_id).state is JobState.STARTING


def test_a_decision_made_from_an_old_reading_changes_nothing(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job()
    plan = decide_anew(world)
    world.scheduler().run_once()
    before = world.job(job_id).version

    with world.database.write() as session:
        applied = apply_decisions(session, plan.decisions, now=world.now, lease=MINUTE)

    assert any(isinstance(decision, Start) for decision in plan.decisions)
    assert applied == Applied(num_started=0, dropped=frozenset({job_id}))
    assert world.job(job_id).version == before
    assert len(world.attempts(job_id)) == 1


def test_one_stale_decision_does_not_take_the_others_with_it(world: World) -> None:
    world.add_node("n0", cpus=8)
    stale_id, good_id = world.add_job(ONE), world.add_job(ONE)
    plan = decide_anew(world)
    with world.database.write() as session:
        session.get_one(Job, stale_id).version += 1

    with world.database.write() as session:
        applied = apply_decisions(session, plan.decisions, now=world.now, lease=MINUTE)

    assert applied == Applied(num_started=1, dropped=frozenset({stale_id}))
    assert world.job(good_id).state is JobState.STARTING
    assert world.job(stale_id).state is JobState.PENDING


def test_a_failed_commit_of_a_pass_leaves_nothing_and_the_next_pass_does_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_id = world.add_node("n0")
    job_id = world.add_job()
    scheduler = world.scheduler()

    with monkeypatch.context() as patch:
        patch.setattr("scheduler.shell.apply._number_ranks", _power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            scheduler.run_once()

    assert world.job(job_id).state is JobState.PENDING
    assert world.node(node_id).cpu_milli_used == 0
    assert world.attempts(job_id) == []
    scheduler.run_once()
    assert world.job(job_id).state is JobState.STARTING


def _power_cut(*_: object) -> None:
    raise RuntimeError("power cut")


def test_only_one_of_two_schedulers_leads_until_it_falls_silent(world: World) -> None:
    world.add_node("n0", cpus=8)
    first, second = world.scheduler("a"), world.scheduler("b")
    first.run_once()
    job_id = world.add_job(ONE)

    second.run_once()
    assert world.job(job_id).state is JobState.PENDING
    world.now += timedelta(seconds=11)
    second.run_once()

    assert world.job(job_id).state is JobState.STARTING


def test_schedulers_that_all_believe_to_lead_never_give_a_slot_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.shell.loop.Scheduler._leads", lambda *_: True)
    node_ids = [world.add_node(f"n{i}", cpus=3, gpus=3) for i in range(3)]
    job_ids = [world.add_job(ONE) for _ in range(20)]
    threads = [threading.Thread(target=_run_passes, args=(world, name)) for name in ("a", "b", "c")]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with world.database.read() as session:
        slots = session.execute(
            select(Allocation.node_id, Allocation.gpu_index).where(
                Allocation.gpu_index.is_not(None)
            )
        ).all()
    assert len(slots) == len(set(slots)) == 9
    assert [world.node(node_id).cpu_milli_used for node_id in node_ids] == [3000, 3000, 3000]
    live = [job_id for job_id in job_ids if world.job(job_id).state is JobState.STARTING]
    assert len(live) == 9
    for job_id in job_ids:
        world.history(job_id)


def _run_passes(world: World, holder: str) -> None:
    scheduler = world.scheduler(holder)
    for _ in range(10):
        scheduler.run_once()


def test_the_database_itself_refuses_to_leave_a_terminal_state(world: World) -> None:
    job_id = world.add_job(state=JobState.SUCCEEDED)

    refusal = pytest.raises((IntegrityError, OperationalError), match="terminal")
    with refusal, world.database.write() as session:
        session.get_one(Job, job_id).state = JobState.RUNNING


def test_the_database_itself_refuses_a_second_live_attempt(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job()
    world.scheduler().run_once()

    with pytest.raises(IntegrityError), world.database.write() as session:
        session.add(
            Attempt(
                job_id=job_id,
                number=2,
                epoch=2,
                state=AttemptState.LAUNCHING,
                created_at=world.now,
            )
        )


@pytest.mark.parametrize("retries", [0, 2])
def test_infrastructure_failures_end_when_their_budget_is_spent(world: World, retries: int) -> None:
    world.add_node("n0")
    retry = RetrySpec(max_infra_failures=retries, backoff_seconds=0)
    job_id = world.add_job(JobSpec(recipe="r", retry=retry))
    scheduler = world.scheduler()

    for _ in range(retries + 1):
        scheduler.run_once()
        with world.database.write() as session:
            live = session.scalars(select(Attempt).where(Attempt.ended_at.is_(None))).one()
            end_attempt(session, live, AttemptEnd(outcome="lost"), now=world.now)

    job = world.job(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.LEASE_LOST)
    assert len(world.attempts(job_id)) == retries + 1


def test_a_stop_asked_twice_is_one_story(world: World) -> None:
    world.add_node("n0")
    job_id = world.add_job()
    world.scheduler().run_once()

    with world.database.write() as session:
        ask_stop(
            session, session.get_one(Job, job_id), reason=Reason.PAUSE_REQUESTED, now=world.now
        )
    with world.database.write() as session:
        ask_stop(
            session, session.get_one(Job, job_id), reason=Reason.CANCEL_REQUESTED, now=world.now
        )

    job = world.job(job_id)
    assert (job.state, job.stop_reason) == (JobState.STOPPING, Reason.CANCEL_REQUESTED)
