"""The whole way of a job on PostgreSQL, and writers that meet there as they cannot on SQLite."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from api.attempts.exit import report_exit
from api.attempts.fence import Ticket
from models import Allocation, Job, Node
from models.queries.jobs import record_event
from scheduler.core.states import TERMINAL_STATES, AttemptState, JobState
from scheduler.shell.loop import Scheduler, SchedulerConfig
from scheduler.shell.reconcile import reconcile
from tests.component.api_data.desk import TWO, Desk, NodeDesk, Supervisor, ok, texts
from tests.factories import job_document
from tests.postgres import migrated_database
from tests.services import wait_for

pytestmark = pytest.mark.postgres

WORKERS = 2
NODE_CPUS = 8


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """The service with one project, one pool, and nothing in them, about 60 ms."""
    with migrated_database("postgres", request.config, tmp_path) as database:
        desk = Desk(database, tmp_path / "storage")
        with desk.http:
            yield desk


def submit(desk: Desk, **headers: str) -> Any:
    """Submit a job of two workers over HTTP."""
    document = job_document(workers=WORKERS)
    return desk.http.post("/v1/jobs", json=document, headers={**desk.admin, **headers})


def run_at_once(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own and wait for all; what one raises fails the test."""
    with ThreadPoolExecutor(len(works)) as threads:
        for running in [threads.submit(work) for work in works]:
            running.result(60)


def test_a_job_goes_from_submit_to_its_checkpoint(desk: Desk) -> None:
    job_id = ok(submit(desk))["id"]
    node = desk.join()
    desk.schedule()
    supervisor = node.take(job_id)
    for phase in ("staging", "starting", "running"):
        supervisor.lease(phase, progress={"step": 1, "total_steps": 2, "steps_per_second": 0.5})
    assert ok(supervisor.append(b"hello\nwor", 0))["length"] == 9
    assert ok(supervisor.append(b"ld\n", 9))["length"] == 12
    assert ok(supervisor.measure(0, {"loss": [(0, 0.5), (1, "NaN")]}))["high_water"] == 2
    assert ok(supervisor.measure(2, {"loss": [(2, 0.25)]}))["high_water"] == 3
    checkpoint = supervisor.save(2, {"model.bin": b"weights"}, {"val/accuracy": 0.9})

    answer = ok(supervisor.exit())

    assert answer == {"accepted": True, "job_state": "succeeded"}
    assert ok(supervisor.exit()) == answer
    job = desk.get(f"/v1/jobs/{job_id}")
    assert (job["state"], job["progress"]["step"]) == ("succeeded", 1)
    events = desk.get(f"/v1/jobs/{job_id}/events")["data"]
    assert [event["type"] for event in events] == [
        "job.pending", "job.queued", "job.starting", "attempt.staging", "attempt.starting",
        "job.running", "checkpoint.committed", "job.finalizing", "job.succeeded",
    ]  # fmt: skip
    assert texts(desk.get(f"/v1/jobs/{job_id}/logs")) == ["hello", "world"]
    series = desk.get(f"/v1/jobs/{job_id}/metrics", key="loss")
    assert (series["steps"], series["values"]) == ([0, 1, 2], [0.5, "NaN", 0.25])
    (listed,) = desk.get(f"/v1/jobs/{job_id}/checkpoints")["data"]
    assert (listed["id"], listed["step"]) == (checkpoint["id"], 2)
    path = f"/v1/checkpoints/{listed['id']}/files/model.bin"
    assert desk.http.get(path, headers=desk.admin).content == b"weights"
    assert count_held(desk) == (0, 0)


def test_rows_are_told_apart_beyond_32_bits(desk: Desk) -> None:
    supervisor = desk.launch()
    with desk.database.write() as session:
        for table in ("events", "log_chunks", "metric_chunks"):
            session.execute(text(f"ALTER SEQUENCE {table}_id_seq RESTART WITH {2**40}"))

    supervisor.lease()
    ok(supervisor.append(b"a\nb\nc\n", 0))
    ok(supervisor.measure(0, {"loss": [(1, 0.5)]}))

    logs = f"/v1/jobs/{supervisor.job_id}/logs"
    first = desk.get(logs, limit=1)
    rest = desk.get(logs, after=first["next_cursor"])
    assert texts(first) + texts(rest) == ["a", "b", "c"]
    assert desk.get(logs, after=f"{10**18 - 1}-0")["data"] == []
    assert desk.get(f"/v1/jobs/{supervisor.job_id}/metrics", key="loss")["steps"] == [1]


def test_jobs_are_found_by_what_their_labels_say(desk: Desk) -> None:
    for team in ("vision", "speech"):
        document = job_document(labels={"team": team})
        ok(desk.http.post("/v1/jobs", json=document, headers=desk.admin))

    (found,) = desk.get("/v1/jobs", label="team:vision")["data"]

    assert found["labels"] == {"team": "vision"}


def test_requests_with_one_idempotency_key_make_one_job_even_at_once(desk: Desk) -> None:
    answers: list[Any] = []
    all_ready = threading.Barrier(4)

    def send() -> None:
        all_ready.wait(10)
        answers.append(submit(desk, **{"idempotency-key": "same"}))

    run_at_once(*[send] * 4)

    assert len({ok(answer)["id"] for answer in answers}) == 1
    with desk.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_a_follower_misses_no_line_while_ranks_print_at_once(desk: Desk) -> None:
    supervisor = desk.launch(TWO)
    num_lines = 25
    found: list[tuple[int, str]] = []

    def print_lines(rank: int) -> None:
        offset = 0
        for number in range(num_lines):
            line = b"%d\n" % number
            ok(supervisor.append(line, offset, rank=rank))
            offset += len(line)

    def follow() -> None:
        place: dict[str, str] = {}
        deadline_s = time.monotonic() + 30
        while len(found) < WORKERS * num_lines and time.monotonic() < deadline_s:
            page = desk.get(f"/v1/jobs/{supervisor.job_id}/logs", **place)
            found.extend((line["rank"], line["text"]) for line in page["data"])
            if page["next_cursor"] is not None:
                place = {"after": page["next_cursor"]}

    run_at_once(lambda: print_lines(0), lambda: print_lines(1), follow)

    for rank in range(WORKERS):
        lines = [line for of_rank, line in found if of_rank == rank]
        assert lines == [str(number) for number in range(num_lines)]


def test_who_comes_second_to_a_job_looks_again(desk: Desk) -> None:
    job_id = ok(submit(desk))["id"]
    hold = f"/v1/jobs/{job_id}/hold"

    with ThreadPoolExecutor(1) as threads:
        with desk.database.write() as session:
            job = session.get_one(Job, job_id)
            record_event(session, job, "job.edited", now=datetime.now(UTC))
            second = threads.submit(desk.http.post, hold, headers=desk.admin)
            wait_for("the second to wait for the first", lambda: is_lock_waited_for(desk))

        ok(second.result(30))
    assert desk.world.history(job_id) == ["job.pending", "job.edited", "job.held"]


def test_an_attempt_that_reports_its_end_just_now_is_not_taken_for_lost(desk: Desk) -> None:
    supervisor = desk.launch()
    node_id = supervisor.assignment()["node_id"]
    ticket = Ticket(attempt_id=supervisor.attempt_id, node_id=node_id, epoch=1)
    record: dict[str, Any] = {"outcome": "succeeded", "reason": None, "message": None, "ranks": []}
    now = datetime.now(UTC)
    much_later = now + timedelta(hours=1)

    with desk.database.write() as reporting:
        report_exit(reporting, ticket, record, now=now)
        reporting.flush()  # written, and not committed before the other one has looked
        with desk.database.write() as session:
            session.execute(text("SET LOCAL lock_timeout = '5s'"))
            reconcile(session, now=much_later, judged_from=now)

    (attempt,) = desk.world.attempts(supervisor.job_id)
    assert attempt.state is AttemptState.EXITED
    assert desk.world.job(supervisor.job_id).state is JobState.SUCCEEDED
    assert count_held(desk) == (0, 0)


def test_two_schedulers_and_two_nodes_bring_every_job_to_its_end_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both believe to lead, as after a pause that was longer than the lease.
    monkeypatch.setattr("scheduler.shell.loop.Scheduler._leads", lambda *_: True)
    nodes = [desk.join("n0"), desk.join("n1")]
    job_ids: list[str] = []
    schedulers = [make_scheduler(desk, holder) for holder in ("a", "b")]
    are_over = threading.Event()

    def submit_jobs() -> None:
        job_ids.extend(ok(submit(desk))["id"] for _ in range(12))

    def wait_for_jobs() -> None:
        deadline_s = time.monotonic() + 45
        while time.monotonic() < deadline_s and not (len(job_ids) == 12 and num_open(desk) == 0):
            time.sleep(0.05)
        are_over.set()
        for scheduler in schedulers:
            scheduler.stop()

    run_at_once(
        *(scheduler.run for scheduler in schedulers),
        *((lambda node=node: serve(node, are_over)) for node in nodes),
        submit_jobs,
        wait_for_jobs,
    )

    for job_id in job_ids:
        assert desk.world.job(job_id).state is JobState.SUCCEEDED
        assert len(desk.world.attempts(job_id)) == 1
        history = desk.world.history(job_id)
        assert history.count("job.starting") == history.count("job.succeeded") == 1
    assert count_held(desk) == (0, 0)


def make_scheduler(desk: Desk, holder: str) -> Scheduler:
    """Return a scheduler on the real clock."""
    config = SchedulerConfig(
        holder=holder,
        poll=timedelta(milliseconds=200),
        lease=timedelta(seconds=60),
        leader_lease=timedelta(seconds=10),
        silence_max=timedelta(seconds=60),
        reconcile_every=timedelta(0),
    )
    return Scheduler(desk.database, config, lambda: datetime.now(UTC))


def serve(node: NodeDesk, are_over: threading.Event) -> None:
    """Be a node: run to the end whatever is assigned, until all jobs are over."""
    while not are_over.is_set():
        assigned = node.beat(wait=0.2)["assignments"]
        assert len(assigned) * WORKERS <= NODE_CPUS, "more than the node has"
        supervisors = []
        for each in assigned:
            node.supervisors.append({"attempt_id": each["attempt_id"], "epoch": each["epoch"]})
            supervisors.append(Supervisor(node.desk, each["attempt_id"], each["token"]))
        for supervisor in supervisors:
            supervisor.lease("running")
            ok(supervisor.append(b"hello\n", 0))
        for supervisor in supervisors:
            assert ok(supervisor.exit())["job_state"] == "succeeded"
        node.supervisors.clear()


def is_lock_waited_for(desk: Desk) -> bool:
    """Return whether some transaction waits for another one."""
    with desk.database.read() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def num_open(desk: Desk) -> int:
    """Return how many jobs have not ended."""
    with desk.database.read() as session:
        still = select(func.count()).where(Job.state.not_in(TERMINAL_STATES))
        return session.scalar(still) or 0


def count_held(desk: Desk) -> tuple[int, int]:
    """Return how many allocations there are, and the thousandths of CPUs that nodes hold back."""
    with desk.database.read() as session:
        num_allocations = session.scalar(select(func.count()).select_from(Allocation)) or 0
        return num_allocations, session.scalar(select(func.sum(Node.cpu_milli_used))) or 0
