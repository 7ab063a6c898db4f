"""What a pass may decide: a closed union. Pure.

Each decision carries the version of the job it was made from; applying is compare-and-set, so a
stale decision dies instead of being half applied. Decisions of one pass about the same job follow
each other, each with the version that the one before leaves behind (+ 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.cluster import Claim, Placement, Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Nothing holds the job back any more: pending → queued."""

    job_id: str
    version: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The job must wait before it may be placed: → pending, with the reason."""

    job_id: str
    version: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give the whole gang its slots and make an attempt; ends the job's claim and reservation."""

    job_id: str
    version: int
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Ask a running job to save and stop within its grace, so that `for_job` may start.

    Attributes:
        reason: `Preempting` for one that has to wait again, `Migrating` for one that has been
            given another place (its own `Keep` comes with it).
        lost_gpu_ms: what it loses at most: GPUs times (time since its last checkpoint + restart).
    """

    job_id: str
    version: int
    reason: str
    for_job: str
    lost_gpu_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Keep places for a waiting or moving job: what its victims leave goes to nobody else."""

    job_id: str
    version: int
    claim: Claim | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Give, improve, postpone or withdraw a guarantee.

    Attributes:
        reservation: None withdraws it.
        cause: why it is new or later: `First`, `HigherPriority`, `CapacityLost`, `Overrun`,
            `NotFirst`, `Held`.
    """

    job_id: str
    version: int
    reservation: Reservation | None
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """The job goes on waiting, for another reason than the one it shows."""

    job_id: str
    version: int
    reason: str
    message: str


Decision = Admit | Hold | Start | Preempt | Keep | Reserve | Explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one pass decided, and when the next is due even if nothing happens.

    Attributes:
        next_wakeup_ms: instant at which something changes by itself, None when nothing will.
    """

    decisions: tuple[Decision, ...] = ()
    next_wakeup_ms: int | None = None
