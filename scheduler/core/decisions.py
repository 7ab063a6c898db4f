"""What a pass may decide: a closed union. Pure.

Each decision carries the version of the job it was made from; applying is compare-and-set, so a
stale decision dies instead of being half applied.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.cluster import Placement


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
    """Give the whole gang its slots and make an attempt."""

    job_id: str
    version: int
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """The job goes on waiting, for another reason than the one it shows."""

    job_id: str
    version: int
    reason: str
    message: str


Decision = Admit | Hold | Start | Explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one pass decided, and when the next is due even if nothing happens.

    Attributes:
        next_wakeup_ms: instant at which a waiting job becomes eligible, None when none will.
    """

    decisions: tuple[Decision, ...] = ()
    next_wakeup_ms: int | None = None
