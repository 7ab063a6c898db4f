"""What an attempt leaves behind when it ends: usage, budgets, faults; and what follows from it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from models import (
    Event,
    JobDependency,
    Node,
    NodeFault,
    Project,
    Quota,
    UsageMonth,
    UsageShare,
)
from models.queries.attempts import ask_stop
from models.queries.faults import forget_faults
from models.queries.usage import Use, record_use
from scheduler.core.policy import DEFAULT_POLICY
from scheduler.core.reasons import Reason
from scheduler.core.spec import JobSpec, Limits, ResourceRequest
from scheduler.core.states import JobState
from scheduler.shell.reconcile import reconcile
from tests.worlds import START, World

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
TWO_GPUS = ResourceRequest(gpus=2, cpus=1)
JOB = JobSpec(recipe="r", workers=1, resources=TWO_GPUS)
CPU_JOB = JobSpec(recipe="r", workers=1, resources=ResourceRequest(gpus=0, cpus=2))


def _run(world: World, spec: JobSpec = JOB, **columns: object) -> str:
    """Submit a job on a world with a node, and let it run."""
    if not world.node_ids():
        world.add_node("n0", cpus=8, gpus=2)
    job_id = world.add_job(spec, **columns)
    for node_id in world.node_ids():
        world.hear(node_id)
    world.scheduler().run_once()
    world.join(job_id)
    return job_id


def _reconcile(world: World) -> None:
    world.renew_leases()
    with world.database.write() as session:
        reconcile(session, now=world.now, judged_from=START)


def _months(world: World) -> dict[tuple[str, str], tuple[int, int, int]]:
    with world.database.read() as session:
        return {
            (row.user_id, row.month): (row.gpu_ms, row.cpu_ms, row.num_attempts)
            for row in session.scalars(select(UsageMonth))
        }


def _add_quota(world: World, user_id: str | None = None, **columns: object) -> None:
    with world.database.write() as session:
        project_id = session.scalars(select(Project.id)).one()
        session.add(
            Quota(
                project_id=project_id,
                user_id=user_id,
                created_at=world.now,
                updated_at=world.now,
                **columns,
            )
        )


class TestUsage:
    """Counted once, for job, user and month, in the transaction that ends the attempt."""

    def test_an_attempt_counts_from_claiming_its_slots_to_giving_them_back(
        self, world: World
    ) -> None:
        job_id = _run(world, created_by="key_a")
        world.now += HOUR

        world.end(job_id)

        job = world.job(job_id)
        assert (job.served_ms, job.gpu_ms) == (HOUR_MS, 2 * HOUR_MS)
        assert job.waiting_since_at == world.now
        assert _months(world) == {("key_a", "2030-01"): (2 * HOUR_MS, HOUR_MS, 1)}

    def test_a_job_without_gpus_uses_cpus(self, world: World) -> None:
        job_id = _run(world, CPU_JOB)
        world.now += HOUR

        world.end(job_id)

        assert _months(world) == {("", "2030-01"): (0, 2 * HOUR_MS, 1)}
        with world.database.read() as session:
            assert session.scalars(select(UsageShare)).all() == []

    def test_an_attempt_over_the_end_of_a_month_counts_for_both(self, world: World) -> None:
        world.now = datetime(2030, 1, 31, 23, tzinfo=UTC)
        job_id = _run(world)
        world.now += 3 * HOUR

        world.end(job_id)

        assert _months(world) == {
            ("", "2030-01"): (2 * HOUR_MS, HOUR_MS, 0),
            ("", "2030-02"): (4 * HOUR_MS, 2 * HOUR_MS, 1),
        }

    def test_what_was_used_a_half_life_ago_counts_half(self, world: World) -> None:
        half_life = timedelta(milliseconds=DEFAULT_POLICY.half_life_ms)
        for _ in range(2):
            job_id = _run(world, created_by="key_a")
            world.now += HOUR
            world.end(job_id)
            ended_at = world.now
            world.now += half_life - HOUR

        with world.database.read() as session:
            share = session.scalars(select(UsageShare)).one()
        assert (share.gpu_ms, share.as_of_at) == (3 * HOUR_MS, ended_at)

    def test_of_attempts_that_end_at_once_none_is_lost(self, world: World) -> None:
        with world.database.read() as session:
            project_id = session.scalars(select(Project.id)).one()
        use = Use(num_gpus=1, cpu_milli=1000, since=START, until=START + HOUR)

        def end_ten() -> None:
            for _ in range(10):
                with world.database.write() as session:
                    record_use(session, project_id=project_id, user_id="key_a", use=use)

        threads = [threading.Thread(target=end_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert _months(world) == {("key_a", "2030-01"): (40 * HOUR_MS, 40 * HOUR_MS, 40)}
        with world.database.read() as session:
            assert session.scalars(select(UsageShare.gpu_ms)).one() == 40 * HOUR_MS


class TestDeadline:
    """A job that made room keeps its deadline: decision 0014."""

    @pytest.mark.parametrize(
        ("reason", "state"),
        [
            pytest.param(Reason.PREEMPTING, JobState.STOPPING, id="it made room"),
            pytest.param(Reason.NODE_DRAINING, JobState.STOPPING, id="its node was drained"),
            pytest.param(None, JobState.RUNNING, id="it failed: the next one is a new run"),
        ],
    )
    def test_only_what_the_service_cut_short_counts_on(
        self, world: World, reason: Reason | None, state: JobState
    ) -> None:
        spec = JobSpec(recipe="r", workers=1, resources=TWO_GPUS, limits=Limits(wall_seconds=7000))
        job_id = _run(world, spec)
        world.now += HOUR
        if reason is None:
            world.end(job_id, "lost")
        else:
            with world.database.write() as session:
                session.add(job := session.merge(world.job(job_id)))
                ask_stop(session, job, reason=reason, now=world.now)
            world.end(job_id, "stopped")
        world.now += timedelta(minutes=1)
        for node_id in world.node_ids():
            world.hear(node_id)
        world.scheduler().run_once()
        world.join(job_id)
        world.now += HOUR

        _reconcile(world)

        job = world.job(job_id)
        assert (job.state, job.evictions) == (state, int(reason is Reason.PREEMPTING))


class TestBudgets:
    """A job whose GPU-hours are used saves and stops; those of a month never fail it."""

    @pytest.mark.parametrize(
        ("on_budget", "state", "reason"),
        [
            ("pause", JobState.PAUSED, Reason.PAUSED_BY_BUDGET),
            ("fail", JobState.FAILED, Reason.BUDGET_EXCEEDED),
        ],
    )
    def test_its_own_hours_are_counted_over_all_attempts(
        self, world: World, on_budget: str, state: JobState, reason: Reason
    ) -> None:
        limits = Limits(gpu_hours=3, on_budget="fail" if on_budget == "fail" else "pause")
        spec = JobSpec(recipe="r", workers=1, resources=TWO_GPUS, limits=limits)
        job_id = _run(world, spec, gpu_ms=2 * HOUR_MS)
        world.now += HOUR / 2 - timedelta(seconds=1)
        _reconcile(world)
        assert world.job(job_id).state is JobState.RUNNING

        world.now += timedelta(seconds=1)
        _reconcile(world)

        job = world.job(job_id)
        assert (job.state, job.stop_reason) == (JobState.STOPPING, Reason.BUDGET_REACHED)
        world.end(job_id, "stopped")
        job = world.job(job_id)
        assert (job.state, job.reason) == (state, reason)
        assert "PATCH /v1/jobs/{id}" in job.message

    @pytest.mark.parametrize("user_id", [None, "key_a"], ids=["of the project", "of the user"])
    def test_a_months_hours_are_those_of_all_jobs(self, world: World, user_id: str | None) -> None:
        _add_quota(world, user_id, gpu_hours_per_month=4.0)
        first = _run(world, created_by="key_a")
        world.now += HOUR
        world.end(first)
        second = _run(world, created_by="key_a")
        world.now += HOUR

        _reconcile(world)

        assert world.job(second).stop_reason == Reason.BUDGET_SPENT
        world.end(second, "stopped")
        assert world.job(second).reason == Reason.PAUSED_BY_BUDGET

    def test_a_new_month_begins_with_nothing_used(self, world: World) -> None:
        _add_quota(world, gpu_hours_per_month=4.0)
        world.now = datetime(2030, 1, 31, 22, 30, tzinfo=UTC)
        job_id = _run(world)
        world.now += 3 * HOUR

        _reconcile(world)

        assert world.job(job_id).state is JobState.RUNNING

    def test_a_job_without_gpus_needs_no_gpu_hours(self, world: World) -> None:
        _add_quota(world, gpu_hours_per_month=0.0)
        job_id = _run(world, CPU_JOB)
        world.now += HOUR

        _reconcile(world)

        assert world.job(job_id).state is JobState.RUNNING


class TestDependencies:
    """What waits for something that will never come fails at once, and says so."""

    def test_all_that_stand_behind_a_failed_job_fail(self, world: World) -> None:
        first = _run(world)
        second = world.add_job(JobSpec(recipe="r", workers=1, depends_on=(first,)))
        third = world.add_job(JobSpec(recipe="r", workers=1, depends_on=(second,)))
        other = world.add_job(JobSpec(recipe="r", workers=1, hold=True))
        world.end(first, "failed")

        _reconcile(world)

        for job_id, needed_id in ((second, first), (third, second)):
            job = world.job(job_id)
            assert (job.state, job.reason) == (JobState.FAILED, Reason.DEPENDENCY_FAILED)
            assert job.message.startswith(f"{needed_id}, which it depends on, has failed")
            world.history(job_id)
        assert world.job(other).state is JobState.PENDING
        with world.database.read() as session:
            assert session.scalars(select(JobDependency)).all() == []

    def test_nothing_fails_while_it_may_still_come(self, world: World) -> None:
        first = _run(world)
        second = world.add_job(JobSpec(recipe="r", workers=1, depends_on=(first,)))

        _reconcile(world)

        assert world.job(second).state is JobState.PENDING


class TestQuarantine:
    """A node that fails under several jobs gets no new work for a while."""

    def _fail(self, world: World, job_id: str) -> None:
        """Let the job's node fall silent, and be heard again."""
        world.now += timedelta(minutes=2)
        with world.database.write() as session:
            reconcile(session, now=world.now, judged_from=START)
        assert world.job(job_id).reason == Reason.RETRY_BACKOFF

    def test_three_failures_of_two_jobs(self, world: World) -> None:
        node_id = world.add_node("n0", cpus=8, gpus=2)
        for _ in range(3):
            assert world.node(node_id).quarantined_until is None
            job_id = _run(world)
            self._fail(world, job_id)
            world.change_job(job_id, is_held=True, reason=Reason.HELD_BY_USER)

        node = world.node(node_id)
        assert node.quarantined_until == world.now + HOUR
        assert "failed 3 times" in (node.quarantine_message or "")
        with world.database.read() as session:
            told = [event.data.get("quarantined_nodes") for event in session.scalars(select(Event))]
        assert [node_ids for node_ids in told if node_ids] == [[node_id]]

        with world.database.write() as session:
            forget_faults(session, session.get_one(Node, node_id))

        assert world.node(node_id).quarantined_until is None
        with world.database.read() as session:
            assert session.scalars(select(NodeFault)).all() == []

    def test_a_code_error_is_no_fault_of_the_node(self, world: World) -> None:
        job_id = _run(world)

        world.end(job_id, "failed")

        with world.database.read() as session:
            assert session.scalars(select(NodeFault)).all() == []
