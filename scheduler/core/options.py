"""What would let a waiting job start sooner: each change is simulated, none is guessed. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scheduler.core.ahead import Lineup
from scheduler.core.cluster import JobView
from scheduler.core.placement import find_homes
from scheduler.core.state import State

_LEAST_MS = 60_000
_LEAST_PARTS = 10
_LIMIT_PARTS = (2, 4, 8)
_LIMIT_MIN_MS = 60_000

Change = dict[str, int | str | bool]
"""Fields of the spec by their paths, such as `limits.wall_seconds`."""

FindPoint = Callable[[JobView, int | None], int | None]
"""(the job as it would be, the latest instant that is of interest) → when it starts, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A change, and when the job would start with it.

    Attributes:
        gained_ms: how much sooner that is; None where it is not known when it starts as it is.
    """

    change: Change
    start_ms: int
    gained_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freedom:
    """What may be changed about a job.

    Attributes:
        worker_counts: how few workers its layout could do with, the most first.
        priority_max: of its quotas.
    """

    worker_counts: tuple[int, ...] = ()
    priority_max: int = 0


def find_options(
    state: State,
    job: JobView,
    now_ms: int,
    *,
    point_ms: int | None,
    freedom: Freedom,
    find_point: FindPoint,
) -> Iterator[Option]:
    """Yield every change with which the job would start at least a minute and a tenth sooner.

    Where it is not known when it starts as it is, only what would let it start at once.
    """
    until_ms = now_ms
    if point_ms is not None:
        until_ms = point_ms - max(_LEAST_MS, (point_ms - now_ms) // _LEAST_PARTS)
    if until_ms < now_ms:
        return
    for family in (
        _with_fewer_workers(job, freedom),
        _in_other_pools(state, job),
        _with_shorter_limits(job),
        _spread_out(job),
        _more_urgent(state, job, now_ms, freedom),
    ):
        for change, changed in family:
            start_ms = find_point(changed, until_ms)
            if start_ms is None or start_ms > until_ms:
                continue
            gained_ms = None if point_ms is None else point_ms - start_ms
            yield Option(change=change, start_ms=start_ms, gained_ms=gained_ms)
            if "pool" not in change:
                break  # the smallest change of its kind is enough


def _with_fewer_workers(job: JobView, freedom: Freedom) -> Iterator[tuple[Change, JobView]]:
    for count in freedom.worker_counts:
        if count < job.shape.num_workers:
            shape = dataclasses.replace(job.shape, num_workers=count)
            yield {"workers": count}, dataclasses.replace(job, shape=shape)


def _in_other_pools(state: State, job: JobView) -> Iterator[tuple[Change, JobView]]:
    doors: dict[str, str] = {}
    for name, queue in sorted(state.queues.items()):
        if queue.is_open and (queue.pool not in doors or name == queue.pool):
            doors[queue.pool] = name
    for pool, queue_name in sorted(doors.items()):
        if pool == job.pool:
            continue
        nodes = [node.view for node in state.nodes.by_id.values() if node.view.pool == pool]
        if not job.shape.num_gpus and any(node.capacity.num_gpus for node in nodes):
            continue  # a worker that names no GPUs would get one there
        if find_homes(job.shape, state.nodes.find_groups(pool, job.shape)):
            change: Change = {"queue": queue_name, "pool": pool}
            yield change, dataclasses.replace(job, pool=pool, queue=queue_name)


def _with_shorter_limits(job: JobView) -> Iterator[tuple[Change, JobView]]:
    for part in _LIMIT_PARTS if job.limit_ms is not None else ():
        limit_ms = (job.limit_ms or 0) // part // 1000 * 1000
        if limit_ms >= _LIMIT_MIN_MS and limit_ms > job.served_ms:
            change: Change = {"limits.wall_seconds": limit_ms // 1000}
            yield change, dataclasses.replace(job, limit_ms=limit_ms)


def _spread_out(job: JobView) -> Iterator[tuple[Change, JobView]]:
    shape = job.shape
    if shape.num_gpus and shape.num_workers > 1 and not shape.may_spread:
        spread = dataclasses.replace(shape, may_spread=True)
        yield {"resources.spread": True}, dataclasses.replace(job, shape=spread)


def _more_urgent(
    state: State, job: JobView, now_ms: int, freedom: Freedom
) -> Iterator[tuple[Change, JobView]]:
    highest = Lineup(state, job, now_ms).find_highest_priority()
    if highest is None:
        return
    priority = min(max(highest, job.priority) + 1, freedom.priority_max)
    if priority > job.priority:
        yield {"priority": priority}, dataclasses.replace(job, priority=priority)
