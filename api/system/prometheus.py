"""`/metrics` for Prometheus: the series of this process, and counts that are read when asked.

Jobs are counted by state, project and pool, never one by one: labels stay bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.config import Timers
from api.deps import ConfigDep, CurrentCaller, DatabaseDep, Now, StreamsDep
from api.nodes.representation import represent_nodes
from api.streams import Streams
from api.strict import StrictRoute
from api.telemetry import ApiMetrics
from models import Database, Job, Node, Project
from scheduler.core.states import JobState

router = APIRouter(tags=["system"], route_class=StrictRoute)

_WAITING = (JobState.PENDING, JobState.QUEUED)


@router.get(
    "/metrics",
    operation_id="system_metrics",
    response_class=Response,
    responses={
        200: {
            "description": "The series, in the Prometheus text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def metrics(
    request: Request,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    config: ConfigDep,
    now: Now,
) -> Response:
    """Give the present numbers; those of jobs are over what the key may see."""
    api_metrics: ApiMetrics = request.app.state.metrics

    def work() -> bytes:
        families = _collect(database, caller, config.timers, now)
        counted = CollectorRegistry()
        counted.register(_Collected([*families, *_collect_waiters(streams)]))
        return generate_latest(api_metrics.registry) + generate_latest(counted)

    return Response(await run_in_threadpool(work), media_type=CONTENT_TYPE_LATEST)


class _Collected(Collector):
    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families)


def _collect(
    database: Database, caller: Caller, timers: Timers, now: datetime
) -> list[GaugeMetricFamily]:
    with database.read() as session:
        return [
            _count_jobs(session, caller),
            *_measure_queue(session, caller, now),
            *_count_nodes(session, timers, now),
        ]


def _collect_waiters(streams: Streams) -> list[GaugeMetricFamily]:
    return [
        _gauge("trainmaster_sse_connections", "Open event streams.", streams.open_streams),
        _gauge("trainmaster_long_poll_waiters", "Requests that wait.", streams.long_polls),
    ]


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)


def _count_jobs(session: Session, caller: Caller) -> GaugeMetricFamily:
    family = GaugeMetricFamily("trainmaster_jobs", "Jobs.", labels=("state", "project"))
    statement = (
        select(Job.state, Project.name, func.count())
        .join(Project, Project.id == Job.project_id)
        .group_by(Job.state, Project.name)
    )
    for state, project, count in session.execute(_seen_by(statement, caller)):
        family.add_metric((state.value, project), count)
    return family


def _measure_queue(session: Session, caller: Caller, now: datetime) -> list[GaugeMetricFamily]:
    waiting = GaugeMetricFamily(
        "trainmaster_pending_jobs", "Jobs that wait.", labels=("pool", "project")
    )
    statement = (
        select(Job.pool, Project.name, func.count())
        .join(Project, Project.id == Job.project_id)
        .where(Job.state.in_(_WAITING))
        .group_by(Job.pool, Project.name)
    )
    for pool, project, count in session.execute(_seen_by(statement, caller)):
        waiting.add_metric((pool, project), count)
    oldest = session.scalar(
        _seen_by(select(func.min(Job.state_changed_at)).where(Job.state == JobState.QUEUED), caller)
    )
    age_s = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    age = _gauge(
        "trainmaster_oldest_queued_age_seconds", "How long the oldest queued job waits.", age_s
    )
    return [waiting, age]


def _count_nodes(session: Session, timers: Timers, now: datetime) -> list[GaugeMetricFamily]:
    rows = session.scalars(select(Node)).all()
    nodes = represent_nodes(session, rows, now=now, silence_max=timers.silence_max)
    by_state = GaugeMetricFamily("trainmaster_nodes", "Nodes.", labels=("pool", "state"))
    gpus = GaugeMetricFamily("trainmaster_gpus", "GPUs of nodes.", labels=("pool", "state"))
    cpus = GaugeMetricFamily("trainmaster_cpus", "CPUs for workers.", labels=("pool", "state"))
    counts: dict[tuple[str, str], int] = {}
    room: dict[str, list[float]] = {}
    for node in nodes:
        key = (node.pool, node.state.value)
        counts[key] = counts.get(key, 0) + 1
        sums = room.setdefault(node.pool, [0.0, 0.0, 0.0, 0.0])
        for index, value in enumerate(
            (node.capacity.gpus, node.free.gpus, node.capacity.cpus, node.free.cpus)
        ):
            sums[index] += value
    for key, count in counts.items():
        by_state.add_metric(key, count)
    for pool, (num_gpus, free_gpus, num_cpus, free_cpus) in room.items():
        gpus.add_metric((pool, "free"), free_gpus)
        gpus.add_metric((pool, "busy"), num_gpus - free_gpus)
        cpus.add_metric((pool, "free"), free_cpus)
        cpus.add_metric((pool, "busy"), num_cpus - free_cpus)
    return [by_state, gpus, cpus]


def _seen_by(statement: Any, caller: Caller) -> Any:
    return statement if caller.is_admin else statement.where(Job.project_id == caller.project_id)
