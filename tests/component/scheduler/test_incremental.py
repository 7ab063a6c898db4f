"""A scheduler that follows changes decides like one that has just come and reads everything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from models import Allocation, Job, Node
from models.queries.attempts import ask_stop
from models.queries.jobs import advance_job, record_event
from models.queries.resizing import take_size
from scheduler.core.decisions import Explain, Plan, Reserve
from scheduler.core.deltas import Delta, Observed
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, Limits, ResourceRequest
from scheduler.core.state import State
from scheduler.core.states import TERMINAL_STATES, JobEvent, JobState
from scheduler.core.step import step
from scheduler.shell.apply import Applied, apply_decisions
from scheduler.shell.loop import Scheduler
from scheduler.shell.observer import Observer
from tests.component.scheduler.passes import read_view
from tests.worlds import SIGHT, World

ROUNDS = 40
_WAITING = (JobState.PENDING, JobState.QUEUED)
_ACTIVE = (JobState.STARTING, JobState.RUNNING)


class History:
    """A world in which people, supervisors and machines do things at random."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.node_names = [f"n{number}" for number in range(3)]
        self.job_ids: list[str] = []
        for name in self.node_names:
            world.add_node(name, cpus=8, gpus=4)

    def go_on(self) -> None:
        """Let a few things happen, and time pass."""
        for _ in range(self.chance.randint(1, 3)):
            self.chance.choice(
                [
                    self.submit,
                    self.submit,
                    self.submit,
                    self.cancel,
                    self.hold_or_release,
                    self.edit,
                    self.resize,
                    self.join,
                    self.join,
                    self.save,
                    self.end,
                    self.end_what_stops,
                    self.drain_or_open,
                ]
            )()
        self.world.now += timedelta(seconds=self.chance.choice([10, 20, 45, 200]))
        for node_id in self.world.node_ids():
            self.world.hear(node_id)
        self.world.renew_leases()

    def submit(self) -> None:
        """Submit a job; some wait for an earlier one."""
        spec = JobSpec(
            recipe="r",
            workers=self.chance.choice([1, 1, 2, 3]),
            resources=ResourceRequest(gpus=self.chance.choice([0, 1, 1, 2, 4])),
            priority=self.chance.choice([10, 50, 50, 90]),
            limits=Limits(wall_seconds=self.chance.choice([None, 600, 36_000])),
            preemptible=self.chance.random() < 0.8,
            depends_on=tuple(self.chance.sample(self.job_ids[-3:], k=1))
            if self.job_ids and self.chance.random() < 0.2
            else (),
        )
        self.job_ids.append(self.world.add_job(spec, name=f"job-{len(self.job_ids)}"))

    def cancel(self) -> None:
        """Cancel a job in any state."""
        with self.world.database.write() as session:
            job = self.pick(session.scalars(select(Job)).all())
            if job is None or job.state in TERMINAL_STATES | {JobState.FINALIZING}:
                return
            if job.state.has_attempt:
                ask_stop(session, job, reason=Reason.CANCEL_REQUESTED, now=self.world.now)
            else:
                reason = Reason.CANCELLED_BY_USER
                advance_job(session, job, JobEvent.CANCELLED, reason=reason, now=self.world.now)

    def hold_or_release(self) -> None:
        """Hold a waiting job, or let it go."""
        if job := self.pick_in(_WAITING):
            self.world.change_job(job.id, is_held=not job.is_held)

    def edit(self) -> None:
        """Give a waiting job another priority."""
        if job := self.pick_in(_WAITING):
            self.world.change_job(job.id, priority=self.chance.randint(1, 99))

    def resize(self) -> None:
        """Give a job another size: at once, or when its attempt has ended."""
        if job := self.pick_in((*_WAITING, *_ACTIVE)):
            num_workers = self.chance.choice([1, 2, 3])
            with self.world.database.write() as session:
                row = session.get_one(Job, job.id)
                if row.state.has_attempt:
                    row.resize_to = num_workers
                    ask_stop(session, row, reason=Reason.RESIZING, now=self.world.now)
                else:
                    take_size(row, num_workers, resume_sha256=None)
                    record_event(session, row, "job.resized", now=self.world.now)

    def join(self) -> None:
        """Let a job that starts run."""
        if job := self.pick_in((JobState.STARTING,)):
            self.world.join(job.id)

    def save(self) -> None:
        """Let a running job save."""
        if job := self.pick_in((JobState.RUNNING,)):
            self.world.save(job.id, step=self.chance.randint(1, 1000))

    def end(self) -> None:
        """Let a job end by itself."""
        if job := self.pick_in(_ACTIVE):
            self.world.end(job.id, self.chance.choice(["succeeded", "failed"]))

    def end_what_stops(self) -> None:
        """Let a job end that was asked to."""
        if job := self.pick_in((JobState.STOPPING,)):
            self.world.end(job.id, "stopped")

    def drain_or_open(self) -> None:
        """Drain a node, or open it again."""
        name = self.chance.choice(self.node_names)
        with self.world.database.read() as session:
            is_draining = session.scalars(select(Node.is_draining).where(Node.name == name)).one()
        if is_draining or self.chance.random() < 0.3:
            self.world.change_node(name, is_draining=not is_draining)

    def pick_in(self, states: Sequence[JobState]) -> Job | None:
        """Return some job in one of `states`."""
        with self.world.database.read() as session:
            return self.pick(session.scalars(select(Job).where(Job.state.in_(states))).all())

    def pick(self, jobs: Sequence[Job]) -> Job | None:
        """Return one of `jobs`."""
        return self.chance.choice(sorted(jobs, key=lambda job: job.id)) if jobs else None


class Double:
    """Makes each pass a second time from nothing, and compares."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.num_passes = self.num_decisions = self.num_followed = 0

    def step(self, state: State, deltas: Sequence[Delta], now_ms: int) -> tuple[State, Plan]:
        """Stand in for the core."""
        view = read_view(self.world)
        for delta in deltas:
            state.apply(delta, now_ms)
        assert state.observe() == view
        _, anew = step(State(), [Observed(view=view)], now_ms)
        state, plan = step(state, [], now_ms)
        assert substance(plan) == substance(anew)
        self.num_passes += 1
        self.num_decisions += len(plan.decisions)
        self.num_followed += not any(isinstance(delta, Observed) for delta in deltas)
        return state, plan


def substance(plan: Plan) -> list[object]:
    """Return what a plan does; how the reasons of those who wait are worded may lag behind."""
    return [decision for decision in plan.decisions if not isinstance(decision, (Explain, Reserve))]


@pytest.mark.parametrize("seed", [0, 1, 2, 120])
def test_what_follows_changes_decides_like_what_reads_everything(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    history, double = History(world, seed), Double(world)
    monkeypatch.setattr("scheduler.shell.loop.step", double.step)
    scheduler = world.scheduler()
    scheduler._observer = Observer(SIGHT, whole_every=timedelta(days=1))

    for _ in range(ROUNDS):
        history.go_on()
        scheduler.run_once()

    assert double.num_followed == ROUNDS - 1
    assert double.num_decisions > ROUNDS // 3
    check_rows(world)


@pytest.mark.parametrize("seed", range(2))
def test_deltas_that_are_lost_or_come_twice_cost_latency_only(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    history, chance = History(world, seed), random.Random(seed)

    def lossy_step(state: State, deltas: Sequence[Delta], now_ms: int) -> tuple[State, Plan]:
        kept = [delta for delta in deltas for _ in range(chance.choice([0, 1, 1, 2]))]
        return step(state, kept if len(deltas) != 1 else deltas, now_ms)

    monkeypatch.setattr("scheduler.shell.loop.step", lossy_step)
    scheduler = world.scheduler()

    for _ in range(ROUNDS):
        history.go_on()
        scheduler.run_once()
    check_rows(world)

    settle(world, scheduler)


@pytest.mark.parametrize("seed", range(2))
def test_schedulers_that_lead_both_and_die_at_any_moment_cost_latency_only(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("scheduler.shell.loop.Scheduler._leads", lambda *_: True)
    history, chance = History(world, seed), random.Random(seed)
    schedulers = {name: world.scheduler(name) for name in "ab"}

    def dying_apply(*arguments: Any, **named: Any) -> Applied:
        moment = chance.random()
        if moment < 0.1:
            raise _Killed
        applied = apply_decisions(*arguments, **named)
        if moment > 0.9:
            raise _Killed  # and nothing of this transaction is kept
        return applied

    def dying_doubt(*_: object) -> None:
        if chance.random() < 0.1:
            raise _Killed  # this part of the pass is committed, the rest is not

    monkeypatch.setattr("scheduler.shell.loop.apply_decisions", dying_apply)
    monkeypatch.setattr("scheduler.shell.observer.Observer.doubt", dying_doubt)
    monkeypatch.setattr("scheduler.shell.loop._DECISIONS_MAX", 2)

    num_killed = 0
    for _ in range(ROUNDS):
        history.go_on()
        for name in chance.sample("ab", k=2):
            try:
                schedulers[name].run_once()
            except _Killed:
                num_killed += 1
                schedulers[name] = world.scheduler(name)
    monkeypatch.undo()

    assert num_killed > 0
    check_rows(world)
    settle(world, world.scheduler())


class _Killed(Exception):
    """The process is gone."""


def settle(world: World, scheduler: Scheduler) -> None:
    """Let the next whole look find what was lost: then one who comes anew has nothing to add."""
    world.now += timedelta(minutes=2)
    for node_id in world.node_ids():
        world.hear(node_id)
    world.renew_leases()
    for _ in range(3):
        scheduler.run_once()
    _, anew = step(State(), [Observed(view=read_view(world))], round(world.now.timestamp() * 1000))
    assert substance(anew) == []


def check_rows(world: World) -> None:
    """Gangs are whole, slots are held once, and nodes count what is taken of them."""
    with world.database.read() as session:
        slots = session.execute(
            select(Allocation.node_id, Allocation.gpu_index).where(
                Allocation.gpu_index.is_not(None)
            )
        ).all()
        used = session.execute(
            select(Allocation.node_id, func.sum(Allocation.cpu_milli)).group_by(Allocation.node_id)
        )
        cpu_milli = {node_id: int(milli) for node_id, milli in used}
    assert len(slots) == len(set(slots))
    for node_id in world.node_ids():
        assert world.node(node_id).cpu_milli_used == cpu_milli.get(node_id, 0)
    for job in read_view(world).jobs:
        assert (job.placement is not None) == job.state.has_attempt
        if job.placement is not None:
            workers = [share.num_workers for share in job.placement.shares]
            assert sum(workers) == job.shape.num_workers
        world.history(job.job_id)
