"""How much a job still needs, as far as anybody knows, and the key that follows from it. Pure.

The estimate is the smallest of what was measured, declared and remembered. Where there is none of
them, what a job has had so far stands for what it will need (attained service).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from scheduler.core.cluster import JobView, Shape
from scheduler.core.octaves import OCTAVE, count_octaves
from scheduler.core.policy import Policy

STARVED = 64 * OCTAVE
"""What a starved job's key is lowered by: more than any two keys differ."""

CPU_MILLI_PER_GPU = 8_000
"""What counts as much as one GPU in a job without GPUs: the CPUs that come with one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What remains of a job.

    Attributes:
        wall_ms: time on its places; of an attained-service queue its share of the boundary.
        key: static part of its rank, in 1/1024 octaves; smaller goes first.
        bias: the part of the key that does not depend on what remains.
        is_known: whether it was measured, declared or remembered.
        changes_at_ms: when the key of a running job rises: it enters the next queue, outlives its
            history, or has had what it starved for. None when it only falls.
    """

    wall_ms: int
    key: int
    bias: int
    is_known: bool = False
    changes_at_ms: int | None = None


def measure_size(shape: Shape) -> int:
    """Return what the gang takes, in thousandths of a GPU; a gang without GPUs counts its CPUs."""
    if shape.num_gpus:
        return shape.num_gpus * 1000
    cpu_milli = shape.num_workers * shape.per_worker.cpu_milli
    return max(1, cpu_milli * 1000 // CPU_MILLI_PER_GPU)


def estimate(job: JobView, size: int, now_ms: int, policy: Policy) -> Estimate:
    """Return what remains of `job` at `now_ms`; of a waiting job it changes when it is starved."""
    ran_ms = 0 if job.placement is None else max(0, now_ms - job.started_ms)
    had_ms = job.served_ms + ran_ms
    age = job.submit_ms * OCTAVE // policy.ageing_ms
    changes = []
    if is_starved(job, size, now_ms, policy):
        age -= STARVED
        changes.append(job.started_ms + _find_asked(job, size, policy))
    known_ms = find_remaining(job, had_ms, now_ms, policy)
    if known_ms is not None:
        if job.history_ms is not None and had_ms < job.history_ms:
            changes.append(now_ms + job.history_ms - had_ms)
        wall_ms, service = known_ms, known_ms * size
    else:
        service = _find_boundary(had_ms, size, policy)
        changes.append(now_ms + -(-(service - had_ms * size) // size))
        wall_ms = service // size
    is_running = job.placement is not None and bool(changes)
    return Estimate(
        wall_ms=wall_ms,
        key=count_octaves(service) + age,
        bias=age,
        is_known=known_ms is not None,
        changes_at_ms=min(changes) if is_running else None,
    )


def find_deadline(job: JobView, size: int, policy: Policy) -> int:
    """Return the instant at which waiting has become starving: ten times what it asks for."""
    asked_ms = _find_asked(job, size, policy)
    return job.waiting_since_ms + max(policy.starved_min_ms, asked_ms * policy.starved_factor)


def is_starved(job: JobView, size: int, now_ms: int, policy: Policy) -> bool:
    """Whether the job has waited so long that it goes first, and keeps what it asked for."""
    if not job.waiting_since_ms:
        return False
    until_ms = now_ms if job.placement is None else job.started_ms
    if until_ms < job.waiting_since_ms + policy.starved_min_ms:
        return False
    if until_ms < find_deadline(job, size, policy):
        return False
    return job.placement is None or now_ms < job.started_ms + _find_asked(job, size, policy)


def find_remaining(job: JobView, had_ms: int, now_ms: int, policy: Policy) -> int | None:
    """Return the smallest of what is measured, declared and remembered, None without any."""
    found: int | None = None
    if job.remaining_ms is not None:
        found = max(job.remaining_ms - max(0, now_ms - job.measured_ms), policy.restart_ms)
    if job.limit_ms is not None:
        floor_ms = job.limit_ms * policy.floor_ppm // 1_000_000
        left_ms = max(job.limit_ms - had_ms, floor_ms, 1)
        found = left_ms if found is None else min(found, left_ms)
    # A job that has outlived its history has shown that it is not like the others.
    if job.history_ms is not None and had_ms < job.history_ms:
        floor_ms = job.history_ms * policy.floor_ppm // 1_000_000
        left_ms = max(job.history_ms - had_ms, floor_ms, 1)
        found = left_ms if found is None else min(found, left_ms)
    return found


def _find_boundary(had_ms: int, size: int, policy: Policy) -> int:
    """Where the attained-service queue ends in which a job is that has had so much."""
    boundary = policy.attained_gpu_ms * 1000  # in thousandths of a GPU, as `size` is
    while had_ms * size >= boundary:
        boundary *= policy.attained_base
    return boundary


def _find_asked(job: JobView, size: int, policy: Policy) -> int:
    """What the job asked for when it began to wait; nothing that it does on its places counts."""
    waiting = dataclasses.replace(job, remaining_ms=None) if job.remaining_ms is not None else job
    wall_ms = find_remaining(waiting, job.served_ms, 0, policy)
    return _find_boundary(job.served_ms, size, policy) // size if wall_ms is None else wall_ms
