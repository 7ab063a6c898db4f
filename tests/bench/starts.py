"""A thousand queued jobs on simulated nodes: how many the scheduler starts a second.

Nodes are rows with fresh heartbeats; nobody runs what is started. What is measured is the
scheduler's own passes on a durable SQLite, from the first look to the last commit, in the
process that makes them. The floor beside it is what SQLAlchemy alone takes to insert the rows of
as many starts, one transaction each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, insert, select

from models import (
    Allocation,
    Attempt,
    AttemptNode,
    Database,
    DatabaseConfig,
    Event,
    Job,
    Node,
    Pool,
    Project,
    Queue,
    new_id,
)
from models.queries.jobs import add_job
from models.schema import upgrade_schema
from scheduler.core.spec import JobSpec, content_hash, write_spec
from scheduler.core.states import AttemptState, JobState
from scheduler.shell.loop import Scheduler, SchedulerConfig
from tests.bench.bench import Bench, wait_for_quiet
from tests.bench.figures import Figure, Series, Target

NAME = "starts"
_JOBS = 1000
_NODES = 125
_GPUS = 8
_PASSES_MAX = 50
_SPEC = JobSpec(recipe="image-classifier", workers=1)


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; 5 s a round."""
    ours: list[float] = []
    theirs: list[float] = []
    passes: list[list[float]] = []
    for number in range(bench.count(5, 1)):
        with _database(bench.make_folder(f"starts-{number}") / "starts.db") as database:
            _fill(database)
            wait_for_quiet()
            passes.append(_start_all(database))
            ours.append(_JOBS / sum(passes[-1]))
        with _database(bench.make_folder(f"rows-{number}") / "rows.db") as database:
            _fill(database)
            wait_for_quiet()
            theirs.append(_JOBS / _insert_alone(database))
        bench.say(f"{ours[-1]:,.0f}/s beside {theirs[-1]:,.0f}/s, in {len(passes[-1])} passes")
    return [
        Figure(
            name=f"starts of {_JOBS:,} queued jobs",
            unit="/s",
            values=Series(tuple(ours)),
            baseline=Series(tuple(theirs)),
            baseline_name="their rows alone, one transaction each",
            target=Target(of="figure", bound="at least", limit=200.0),
            details={"passes_s": [[round(one, 4) for one in each] for each in passes]},
        )
    ]


@contextmanager
def _database(path: Path) -> Iterator[Database]:
    database = Database(DatabaseConfig(url=f"sqlite:///{path}"))
    try:
        upgrade_schema(database)
        yield database
    finally:
        database.close()


def _fill(database: Database) -> None:
    now = datetime.now(UTC)
    document = write_spec(_SPEC)
    with database.write() as session:
        project = Project(name="default", created_at=now)
        session.add_all([project, Pool(name="default", created_at=now)])
        session.flush()
        session.add(Queue(name="default", pool="default", created_at=now))
        for number in range(_NODES):
            gpus = [
                {"index": at, "uuid": f"{number}-{at}", "model": "H100", "memory_mib": 81920}
                for at in range(_GPUS)
            ]
            session.add(
                Node(
                    name=f"node-{number}",
                    pool="default",
                    credential_sha256=str(number),
                    capacity={"cpu_milli": 64_000, "memory_mib": 524_288, "gpus": gpus},
                    created_at=now,
                    heartbeat_at=now,
                )
            )
        for number in range(_JOBS):
            job = Job(
                project_id=project.id,
                name=f"job-{number}",
                labels={},
                spec=document,
                spec_sha256=content_hash(document),
                state=JobState.PENDING,
                reason="Submitted",
                message="",
                state_changed_at=now,
                recipe=_SPEC.recipe,
                priority=_SPEC.priority,
                queue="default",
                pool="default",
                num_workers=1,
                is_held=False,
                created_at=now + timedelta(microseconds=number),
            )
            add_job(session, job, now=now, data={})


def _start_all(database: Database) -> list[float]:
    """Return how long each pass took until every job had its slots."""
    config = SchedulerConfig(
        holder="bench",
        poll=timedelta(seconds=4),
        lease=timedelta(seconds=60),
        leader_lease=timedelta(seconds=10),
        silence_max=timedelta(minutes=10),
    )
    scheduler = Scheduler(database, config, lambda: datetime.now(UTC))
    passes_s: list[float] = []
    while _count_starting(database) < _JOBS:
        if len(passes_s) == _PASSES_MAX:
            raise RuntimeError(f"not all jobs were started in {_PASSES_MAX} passes")
        began_s = time.perf_counter()
        scheduler.run_once()
        passes_s.append(time.perf_counter() - began_s)
    return passes_s


def _count_starting(database: Database) -> int:
    with database.read() as session:
        statement = select(func.count()).select_from(Job).where(Job.state == JobState.STARTING)
        return session.scalar(statement) or 0


def _insert_alone(database: Database) -> float:
    """Return the seconds that the rows of as many starts take without anybody deciding."""
    now = datetime.now(UTC)
    with database.read() as session:
        job_ids = list(session.scalars(select(Job.id)))
        node_id = session.scalars(select(Node.id).limit(1)).one()
    began_s = time.perf_counter()
    for number, job_id in enumerate(job_ids):
        attempt_id = new_id("att")
        with database.write() as session:
            for seq in (2, 3):
                session.execute(
                    insert(Event).values(
                        job_id=job_id,
                        seq=seq,
                        type="job.starting",
                        state="starting",
                        reason="Launching",
                        message="",
                        data={"attempt_id": attempt_id},
                        created_at=now,
                    )
                )
            session.execute(
                insert(Attempt).values(
                    id=attempt_id,
                    job_id=job_id,
                    number=1,
                    epoch=1,
                    state=AttemptState.LAUNCHING,
                    created_at=now,
                )
            )
            session.execute(
                insert(AttemptNode).values(
                    attempt_id=attempt_id,
                    node_id=node_id,
                    node_rank=0,
                    ranks=[],
                    phase="assigned",
                    lease_expires_at=now,
                )
            )
            for gpu_index in (None, number):
                session.execute(
                    insert(Allocation).values(
                        attempt_id=attempt_id, node_id=node_id, gpu_index=gpu_index
                    )
                )
    return time.perf_counter() - began_s
