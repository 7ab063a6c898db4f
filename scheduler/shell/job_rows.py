"""Rows of jobs and their live attempts → `JobView`s. Columns, never objects, in few statements."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session

from models.attempt import Attempt, AttemptNode
from models.checkpoint import Checkpoint, CheckpointState
from models.job import Job, JobDependency
from models.project import Project
from scheduler.core.cluster import JobView, NodeShare, Placement, Shape
from scheduler.core.deltas import JobGone, JobSeen
from scheduler.core.reasons import Reason
from scheduler.core.resources import resolve_request
from scheduler.core.spec import Limits, ResourceRequest
from scheduler.core.states import LIVE_STATES, JobState
from scheduler.shell.documents import parse_claim, parse_reservation
from scheduler.shell.history import History

_Row = Row[*tuple[Any, ...]]

WAITING_STATES = frozenset({JobState.PENDING, JobState.QUEUED})
SEEN_STATES = WAITING_STATES | LIVE_STATES
"""Jobs in any other state are not the scheduler's concern."""

# Well below what either database takes as parameters of one statement.
IDS_MAX = 500
_GRACE_SECONDS = Limits().grace_seconds

_COLUMNS = (
    Job.id,
    Job.version,
    Job.state,
    Job.created_at,
    Job.project_id,
    Job.created_by,
    Job.name,
    Job.recipe,
    Job.queue,
    Job.priority,
    Job.pool,
    Job.num_workers,
    Job.request_gpus,
    Job.request_cpu_milli,
    Job.request_memory_mib,
    Job.request_gpu_models,
    Job.request_gpu_memory_mib,
    Job.may_spread,
    Job.spec["preemptible"].as_boolean().label("is_preemptible"),
    Job.spec[("limits", "wall_seconds")].as_integer().label("wall_seconds"),
    Job.spec[("limits", "grace_seconds")].as_integer().label("grace_seconds"),
    Job.is_held,
    Job.not_before_at,
    Job.not_before_reason,
    Job.served_ms,
    Job.deadline_served_ms,
    Job.evictions,
    Job.waiting_since_at,
    Job.reason,
    Job.message,
    Job.claim,
    Job.reservation,
    Job.stop_reason,
)


def _limit_ms(wall_seconds: int | None, served_ms: int, deadline_served_ms: int) -> int | None:
    """Wall time of all attempts at which the limit ends the job: a retry starts it anew."""
    if wall_seconds is None:
        return None
    return wall_seconds * 1000 + served_ms - deadline_served_ms


def chunks(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield `ids` sorted, in parts that fit into one statement."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), IDS_MAX):
        yield ordered[start : start + IDS_MAX]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What a live attempt adds to the view of its job."""

    placement: Placement
    started_ms: int
    saved_ms: int | None
    remaining_ms: int | None
    measured_ms: int


class JobReader:
    """Reads jobs within one session; what many of them share is read once.

    Args:
        gpu_pools: see `list_gpu_pools`.
    """

    def __init__(
        self, session: Session, *, lease: timedelta, history: History, gpu_pools: frozenset[str]
    ) -> None:
        self._session, self._lease, self._history = session, lease, history
        self._gpu_pools = gpu_pools
        rows = session.execute(select(Project.id, Project.name))
        self._project_names: dict[str, str] = dict(iter(rows))

    def read_all(self) -> list[JobView]:
        """Return every job that waits or holds places, by id."""
        return self._read(Job.state.in_(SEEN_STATES))

    def read_holding(self) -> list[JobView]:
        """Return every job that holds places, by id."""
        return self._read(Job.state.in_(LIVE_STATES))

    def read_some(self, job_ids: Iterable[str]) -> list[JobSeen | JobGone]:
        """Return the present truth about each of the jobs."""
        found: list[JobSeen | JobGone] = []
        for ids in chunks(job_ids):
            seen = self._read(Job.id.in_(ids) & Job.state.in_(SEEN_STATES))
            found.extend(JobSeen(job=job) for job in seen)
            others = set(ids) - {job.job_id for job in seen}
            if others:
                found.extend(self._read_gone(others))
        return found

    def _read_gone(self, job_ids: set[str]) -> list[JobGone]:
        rows = self._session.execute(select(Job.id, Job.version).where(Job.id.in_(job_ids)))
        versions: dict[str, int] = dict(iter(rows))
        # A row that was removed had a version too; whatever it was, nothing comes after it.
        return [
            JobGone(job_id=job_id, version=versions.get(job_id, _AFTER_ALL))
            for job_id in sorted(job_ids)
        ]

    def _read(self, chosen: ColumnElement[bool]) -> list[JobView]:
        rows = self._session.execute(select(*_COLUMNS).where(chosen).order_by(Job.id)).all()
        held = self._read_held(chosen) if any(row.state in LIVE_STATES for row in rows) else {}
        waits_for = self._read_dependencies(chosen)
        took_ms = self._history.look_up(
            self._session,
            {(row.project_id, row.name, row.recipe, row.created_by) for row in rows},
        )
        return [
            self._view(
                row,
                held.get(row.id),
                waits_for.get(row.id, ()),
                took_ms.get((row.project_id, row.name, row.recipe, row.created_by)),
            )
            for row in rows
        ]

    def _view(
        self,
        row: _Row,
        held: _Held | None,
        waits_for: tuple[str, ...],
        took_ms: int | None,
    ) -> JobView:
        created_us = round(row.created_at.timestamp() * 1_000_000)
        since = row.waiting_since_at
        grace_seconds = _GRACE_SECONDS if row.grace_seconds is None else row.grace_seconds
        return JobView(
            job_id=row.id,
            version=row.version,
            state=row.state,
            sequence=created_us,
            submit_ms=created_us // 1000,
            project=self._project_names[row.project_id],
            user=row.created_by or "",
            name=row.name,
            queue=row.queue,
            priority=row.priority,
            pool=row.pool,
            shape=_make_shape(
                row.num_workers,
                row.request_gpus,
                row.request_cpu_milli,
                row.request_memory_mib,
                tuple(row.request_gpu_models or ()),
                row.request_gpu_memory_mib or 0,
                may_spread=row.may_spread,
                pool_has_gpus=row.pool in self._gpu_pools,
            ),
            is_preemptible=row.is_preemptible is not False,
            is_held=row.is_held,
            not_before_ms=0 if row.not_before_at is None else ceil_ms(row.not_before_at),
            not_before_reason=row.not_before_reason or Reason.BEGIN_TIME_NOT_REACHED,
            waits_for=waits_for,
            limit_ms=_limit_ms(row.wall_seconds, row.served_ms, row.deadline_served_ms),
            history_ms=took_ms,
            served_ms=row.served_ms,
            evictions=row.evictions,
            waiting_since_ms=created_us // 1000 if since is None else floor_ms(since),
            reason=row.reason,
            message=row.message,
            grace_ms=grace_seconds * 1000,
            claim=None if row.claim is None else parse_claim(row.claim),
            reservation=None if row.reservation is None else parse_reservation(row.reservation),
            placement=None if held is None else held.placement,
            started_ms=0 if held is None else held.started_ms,
            saved_ms=None if held is None else held.saved_ms,
            remaining_ms=None if held is None else held.remaining_ms,
            measured_ms=0 if held is None else held.measured_ms,
            stop_reason=row.stop_reason,
        )

    def _read_held(self, chosen: ColumnElement[bool]) -> dict[str, _Held]:
        live = (Attempt.ended_at.is_(None), chosen)
        committed = self._session.execute(
            select(Attempt.job_id, func.max(Checkpoint.committed_at))
            .join(Job, Job.id == Attempt.job_id)
            .join(Checkpoint, Checkpoint.attempt_id == Attempt.id)
            .where(*live, Checkpoint.state == CheckpointState.COMMITTED)
            .group_by(Attempt.job_id)
        )
        saved_ms = {job_id: floor_ms(instant) for job_id, instant in committed if instant}
        attempts = self._session.execute(
            select(Attempt.job_id, Attempt.created_at, Attempt.progress)
            .join(Job, Job.id == Attempt.job_id)
            .where(*live)
        ).all()
        parts = self._session.execute(
            select(
                Attempt.job_id,
                AttemptNode.node_id,
                AttemptNode.ranks,
                AttemptNode.lease_expires_at,
            )
            .join(Attempt, Attempt.id == AttemptNode.attempt_id)
            .join(Job, Job.id == Attempt.job_id)
            .where(*live)
            .order_by(Attempt.job_id, AttemptNode.node_rank)
        ).all()
        shares: dict[str, list[NodeShare]] = {}
        heard: dict[str, datetime] = {}
        for job_id, node_id, ranks, lease_expires_at in parts:
            shares.setdefault(job_id, []).append(_share(node_id, ranks))
            heard[job_id] = max(heard.get(job_id, lease_expires_at), lease_expires_at)
        return {
            job_id: _Held(
                placement=Placement(shares=tuple(shares[job_id])),
                started_ms=floor_ms(created_at),
                saved_ms=saved_ms.get(job_id),
                remaining_ms=_remaining_ms(progress),
                measured_ms=floor_ms(heard[job_id] - self._lease),
            )
            for job_id, created_at, progress in attempts
        }

    def _read_dependencies(self, chosen: ColumnElement[bool]) -> dict[str, tuple[str, ...]]:
        needed = Job.__table__.alias("needed")
        rows = self._session.execute(
            select(JobDependency.job_id, JobDependency.depends_on_job_id)
            .join(Job, Job.id == JobDependency.job_id)
            .join(needed, needed.c.id == JobDependency.depends_on_job_id)
            .where(chosen, needed.c.state != JobState.SUCCEEDED)
            .order_by(JobDependency.job_id, JobDependency.depends_on_job_id)
        )
        found: dict[str, tuple[str, ...]] = {}
        for job_id, needed_id in rows:
            found[job_id] = (*found.get(job_id, ()), needed_id)
        return found


_AFTER_ALL = 1 << 62


def floor_ms(instant: datetime) -> int:
    """Return milliseconds since the epoch, rounded down."""
    return round(instant.timestamp() * 1_000_000) // 1000


def ceil_ms(instant: datetime) -> int:
    """Return milliseconds since the epoch, rounded up: not before means not a moment before."""
    return -(-round(instant.timestamp() * 1_000_000) // 1000)


@functools.lru_cache(maxsize=10_000)
def _make_shape(
    num_workers: int,
    gpus: int | None,
    cpu_milli: int | None,
    memory_mib: int | None,
    gpu_models: tuple[str, ...],
    gpu_memory_mib: int,
    *,
    may_spread: bool,
    pool_has_gpus: bool,
) -> Shape:
    """Return what a gang needs; jobs by the thousand need the same."""
    request = ResourceRequest(
        gpus=gpus,
        cpus=None if cpu_milli is None else cpu_milli / 1000,
        memory_gib=None if memory_mib is None else memory_mib / 1024,
    )
    return Shape(
        num_workers=num_workers,
        per_worker=resolve_request(request, pool_has_gpus=pool_has_gpus),
        gpu_models=gpu_models,
        gpu_memory_mib=gpu_memory_mib,
        may_spread=may_spread,
    )


def _share(node_id: str, ranks: Sequence[Mapping[str, Any]]) -> NodeShare:
    gpu_indices = tuple(index for rank in ranks for index in rank["gpu_indices"])
    return NodeShare(node_id=node_id, num_workers=len(ranks), gpu_indices=gpu_indices)


def _remaining_ms(progress: Mapping[str, Any] | None) -> int | None:
    """Steps left ÷ steps per second, None when either is not known."""
    said = progress or {}
    step, total_steps = said.get("step"), said.get("total_steps")
    per_second = said.get("steps_per_second")
    if step is None or total_steps is None or not per_second or per_second < 0:
        return None
    seconds: float = max(0.0, total_steps - step) / per_second
    return round(seconds * 1000)
