"""Ask why, with ten thousand jobs in line: how long an answer takes.

Nodes are rows with fresh heartbeats, full of jobs that nobody runs. The app is called in this
process, without a network; every call does what a call over HTTP does behind it. The baseline is
`GET /v1/jobs/{id}` of the same jobs, by the same client.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from api.app import create_app
from api.config import ApiConfig
from api.first_start import prepare_first_start
from models import Database, DatabaseConfig, Event, Job, Node, Project, Queue, new_id
from models.schema import upgrade_schema
from scheduler.core.spec import JobSpec, Limits, content_hash, write_spec
from scheduler.core.states import JobState
from scheduler.shell.loop import Scheduler, SchedulerConfig
from scheduler.shell.oracle import Oracle
from scheduler.shell.snapshot import Sight
from tests.bench.bench import Bench, wait_for_quiet
from tests.bench.figures import Figure, Series, Target

NAME = "explain"
_QUEUED = 10_000
_NODES = 40
_GPUS = 8
_ENDED = 200
_PROJECTS = 5
_SHAPES = (1, 1, 1, 2, 4, 8, 16)
_LIMITS_S = (3600, 14_400, 86_400)
_PASSES = 3
_FRONT = 150
_BASE = "http://127.0.0.1:8700"
_SIGHT = Sight(silence_max=timedelta(hours=1), lease=timedelta(hours=1))
_CONFIG = SchedulerConfig(
    holder="bench",
    poll=timedelta(seconds=4),
    lease=timedelta(hours=1),
    leader_lease=timedelta(seconds=10),
    silence_max=timedelta(hours=1),
)
_ROOT = Path(__file__).parent.parent.parent


def measure(bench: Bench) -> list[Figure]:
    """Return the figures; a minute."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rng = random.Random(3)
    folder = bench.make_folder("explain")
    database = Database(DatabaseConfig(url=f"sqlite:///{folder / 'explain.db'}"))
    try:
        upgrade_schema(database)
        first = prepare_first_start(database, folder, now=datetime.now(UTC))
        _fill(database, rng)
        scheduler = Scheduler(database, _CONFIG, lambda: datetime.now(UTC))
        for _ in range(_PASSES):
            scheduler.run_once()
        config = ApiConfig(
            storage_dir=folder / "storage",
            recipes_dir=_ROOT / "sdk" / "src" / "trainmaster" / "recipes",
            signing_key=first.signing_key,
            version="0.0.0",
        )
        app = create_app(config, database, Oracle(database, _SIGHT))
        assert first.admin_key_path is not None
        headers = {"authorization": f"Bearer {first.admin_key_path.read_text().strip()}"}
        with TestClient(app, base_url=_BASE, headers=headers) as client:
            return _ask(bench, client, _list_waiting(database), rng)
    finally:
        database.close()


def _ask(
    bench: Bench, client: TestClient, waiting: Sequence[str], rng: random.Random
) -> list[Figure]:
    count = bench.count(200, 20)
    began_s = time.perf_counter()
    front = _find_front(client, rng.sample(list(waiting), 40))
    bench.say(f"the first answers took {time.perf_counter() - began_s:.1f} s")
    wait_for_quiet()
    figures = []
    for name, job_ids in (
        ("anywhere in line", rng.sample(list(waiting), count)),
        ("of those that go first", [rng.choice(front) for _ in range(count)]),
    ):
        ours, known = [], 0
        theirs = []
        for job_id in job_ids:
            theirs.append(_time(client, f"/v1/jobs/{job_id}")[0])
            took_s, said = _time(client, f"/v1/jobs/{job_id}/explain")
            ours.append(took_s)
            known += said["start"]["p50_at"] is not None
        ours.sort()
        p50_ms, p95_ms = (ours[int(len(ours) * part)] * 1000 for part in (0.5, 0.95))
        bench.say(f"{name}: p50 {p50_ms:.0f} ms, p95 {p95_ms:.0f} ms, {known} of {count} dated")
        figures.append(
            Figure(
                name=f"explain at {_QUEUED:,} queued, {name}, p95",
                unit="ms",
                values=Series((p95_ms,)),
                baseline=Series((sorted(theirs)[int(len(theirs) * 0.95)] * 1000,)),
                baseline_name="GET of the same job",
                target=Target(of="figure", bound="at most", limit=300.0),
                details={"p50_ms": round(p50_ms, 1), "asked": count, "dated": known},
            )
        )
    return figures


def _time(client: TestClient, path: str) -> tuple[float, dict[str, dict[str, object]]]:
    began_s = time.perf_counter()
    answer = client.get(path)
    took_s = time.perf_counter() - began_s
    assert answer.status_code == 200, answer.text
    return took_s, answer.json()


def _find_front(client: TestClient, sample: Sequence[str]) -> list[str]:
    """Return jobs before which hardly anybody goes: those that others name first."""
    found: dict[str, None] = {}
    for job_id in sample:
        said = client.get(f"/v1/jobs/{job_id}/explain").json()
        found.update(dict.fromkeys(said["ahead"]["own_job_ids"]))
    return list(found)[:_FRONT]


def _list_waiting(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)))


def _fill(database: Database, rng: random.Random) -> None:
    now = datetime.now(UTC)
    with database.write() as session:
        if session.scalars(select(Queue.name)).first() is None:
            session.add(Queue(name="default", pool="default", created_at=now))
        projects = [Project(name=f"project-{at}", created_at=now) for at in range(_PROJECTS)]
        session.add_all(projects)
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
        session.flush()
        project_ids = [project.id for project in projects]
    for number in range(_ENDED + _NODES * _GPUS // 2 + _QUEUED):
        if number % 1000 == 0:
            rows: list[dict[str, object]] = []
            events: list[dict[str, object]] = []
        rows.append(_row(number, rng, project_ids, now))
        events.append(_event(rows[-1], now))
        is_last = number == _ENDED + _NODES * _GPUS // 2 + _QUEUED - 1
        if len(rows) == 1000 or is_last:
            with database.write() as session:
                session.execute(insert(Job), rows)
                session.execute(insert(Event), events)


def _row(
    number: int, rng: random.Random, project_ids: Sequence[str], now: datetime
) -> dict[str, object]:
    limit_s, workers = rng.choice(_LIMITS_S), rng.choice(_SHAPES)
    spec = JobSpec(recipe="image-classifier", workers=workers, limits=Limits(wall_seconds=limit_s))
    document = write_spec(spec)
    has_ended = number < _ENDED
    submitted_at = now + timedelta(microseconds=number)
    return {
        "id": new_id("job"),
        "project_id": rng.choice(project_ids),
        "name": f"job-{number}",
        "recipe": "image-classifier",
        "labels": {},
        "spec": document,
        "spec_sha256": content_hash(document),
        "state": JobState.SUCCEEDED if has_ended else JobState.PENDING,
        "reason": "Completed" if has_ended else "Submitted",
        "message": "",
        "state_changed_at": submitted_at,
        "version": 1,
        "priority": 50,
        "queue": "default",
        "pool": "default",
        "num_workers": workers,
        "served_ms": rng.randrange(60_000, limit_s * 1000) if has_ended else 0,
        "created_by": f"key_{rng.randrange(17)}",
        "created_at": submitted_at,
        "finished_at": submitted_at if has_ended else None,
    }


def _event(row: dict[str, object], now: datetime) -> dict[str, object]:
    return {
        "job_id": row["id"],
        "seq": 1,
        "type": f"job.{row['state']}",
        "state": row["state"],
        "reason": row["reason"],
        "message": "",
        "data": {},
        "created_at": now,
    }
