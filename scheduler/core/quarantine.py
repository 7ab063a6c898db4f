"""When a node has failed so often that it gets no new work for a while. Pure.

One job that brings down whatever runs it is no fault of the node, so faults count only when
several jobs had them. A node that goes down with all its jobs has failed once, not once for each.
Three failures in an hour are no bad luck any more, and an hour is long enough to be noticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.core.reasons import INFRASTRUCTURE_REASONS, Reason

FAULTS_MIN = 3
JOBS_MIN = 2
WINDOW = timedelta(hours=1)
DURATION = timedelta(hours=1)
TOGETHER = timedelta(seconds=30)
"""Leases of one node end this far apart at most: what comes together is one failure."""

BLAMED_REASONS = INFRASTRUCTURE_REASONS - {
    Reason.STORAGE_UNAVAILABLE,
    Reason.STALL_DETECTED,
    Reason.KILLED_TO_VERIFY,
}
"""Faults that lie with the node: outputs are stored elsewhere, most hangs are the code's, and some
ranks are killed on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An attempt that ended on the node for a fault of machines, not of its code."""

    job_id: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """The node gets no new work before `until`; what runs there goes on."""

    until: datetime
    message: str


def decide_quarantine(faults: Iterable[Fault], *, now: datetime) -> Quarantine | None:
    """Return the quarantine that the faults of one node ask for, None while they are few."""
    recent = sorted(
        (fault for fault in faults if now - WINDOW < fault.at <= now), key=lambda fault: fault.at
    )
    num_jobs = len({fault.job_id for fault in recent})
    num_failures = _count_apart([fault.at for fault in recent])
    if num_failures < FAULTS_MIN or num_jobs < JOBS_MIN:
        return None
    reasons = ", ".join(sorted({fault.reason for fault in recent}))
    message = (
        f"failed {num_failures} times within an hour, under {num_jobs} jobs ({reasons}): "
        "look at the machine, then uncordon the node"
    )
    return Quarantine(until=recent[-1].at + DURATION, message=message)


def _count_apart(instants: Iterable[datetime]) -> int:
    """Return how many of the sorted instants begin a failure of their own."""
    num_failures, first = 0, None
    for instant in instants:
        if first is None or instant - first > TOGETHER:
            num_failures, first = num_failures + 1, instant
    return num_failures
