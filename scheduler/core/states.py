"""The two state machines, as tables: jobs and attempts. Pure.

`(state, event) → state`; what is not in a table is illegal. Nothing leaves a terminal state. The
database refuses the same things a second time (see migrations), and the table in the docs is
drawn from here.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; `reason` says why."""

    PENDING = "pending"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    PAUSED = "paused"
    FINALIZING = "finalizing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen any more."""
        return self in TERMINAL_STATES

    @property
    def has_attempt(self) -> bool:
        """Whether a live attempt belongs to this state."""
        return self in LIVE_STATES


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE_STATES = frozenset(
    {JobState.STARTING, JobState.RUNNING, JobState.STOPPING, JobState.FINALIZING}
)


class JobEvent(StrEnum):
    """What can happen to a job."""

    ADMITTED = "admitted"  # nothing holds it back: it may be placed
    HELD = "held"
    PLACED = "placed"  # an attempt owns slots for the whole gang
    JOINED = "joined"  # every rank runs
    STOP_ASKED = "stop_asked"
    CODE_ENDED = "code_ended"  # every rank has ended; outputs are on their way
    PAUSED = "paused"
    RESUMED = "resumed"
    REQUEUED = "requeued"  # the attempt ended, the job goes on later
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_J, _E = JobState, JobEvent
JOB_TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (_J.PENDING, _E.ADMITTED): _J.QUEUED,
    (_J.PENDING, _E.HELD): _J.PENDING,
    (_J.PENDING, _E.PAUSED): _J.PAUSED,
    (_J.PENDING, _E.CANCELLED): _J.CANCELLED,
    (_J.PENDING, _E.FAILED): _J.FAILED,
    (_J.QUEUED, _E.HELD): _J.PENDING,
    (_J.QUEUED, _E.PLACED): _J.STARTING,
    (_J.QUEUED, _E.PAUSED): _J.PAUSED,
    (_J.QUEUED, _E.CANCELLED): _J.CANCELLED,
    (_J.QUEUED, _E.FAILED): _J.FAILED,
    (_J.STARTING, _E.JOINED): _J.RUNNING,
    (_J.STARTING, _E.STOP_ASKED): _J.STOPPING,
    (_J.STARTING, _E.CODE_ENDED): _J.FINALIZING,
    (_J.STARTING, _E.REQUEUED): _J.PENDING,
    (_J.STARTING, _E.FAILED): _J.FAILED,
    (_J.RUNNING, _E.STOP_ASKED): _J.STOPPING,
    (_J.RUNNING, _E.CODE_ENDED): _J.FINALIZING,
    (_J.RUNNING, _E.REQUEUED): _J.PENDING,
    (_J.RUNNING, _E.FAILED): _J.FAILED,
    (_J.STOPPING, _E.STOP_ASKED): _J.STOPPING,  # a cancel overrules a pause
    (_J.STOPPING, _E.CODE_ENDED): _J.FINALIZING,
    (_J.STOPPING, _E.PAUSED): _J.PAUSED,
    (_J.STOPPING, _E.REQUEUED): _J.PENDING,
    (_J.STOPPING, _E.CANCELLED): _J.CANCELLED,
    (_J.STOPPING, _E.FAILED): _J.FAILED,
    (_J.PAUSED, _E.RESUMED): _J.PENDING,
    (_J.PAUSED, _E.CANCELLED): _J.CANCELLED,
    (_J.FINALIZING, _E.SUCCEEDED): _J.SUCCEEDED,
    (_J.FINALIZING, _E.FAILED): _J.FAILED,
    (_J.FINALIZING, _E.REQUEUED): _J.PENDING,
    (_J.FINALIZING, _E.PAUSED): _J.PAUSED,
    (_J.FINALIZING, _E.CANCELLED): _J.CANCELLED,
}


class AttemptState(StrEnum):
    """Where one execution of a job is."""

    LAUNCHING = "launching"  # slots are claimed, the nodes have been asked
    RUNNING = "running"
    DRAINING = "draining"  # ranks are stopping, or have ended and outputs are on their way
    EXITED = "exited"  # its supervisors have reported
    LOST = "lost"  # its supervisors fell silent

    @property
    def is_live(self) -> bool:
        """Whether its supervisors may still write."""
        return self not in {AttemptState.EXITED, AttemptState.LOST}


class AttemptEvent(StrEnum):
    """What can happen to an attempt."""

    JOINED = "joined"
    DRAINED = "drained"
    EXITED = "exited"
    LOST = "lost"


_A, _F = AttemptState, AttemptEvent
ATTEMPT_TRANSITIONS: dict[tuple[AttemptState, AttemptEvent], AttemptState] = {
    (_A.LAUNCHING, _F.JOINED): _A.RUNNING,
    (_A.LAUNCHING, _F.DRAINED): _A.DRAINING,
    (_A.LAUNCHING, _F.EXITED): _A.EXITED,
    (_A.LAUNCHING, _F.LOST): _A.LOST,
    (_A.RUNNING, _F.DRAINED): _A.DRAINING,
    (_A.RUNNING, _F.EXITED): _A.EXITED,
    (_A.RUNNING, _F.LOST): _A.LOST,
    (_A.DRAINING, _F.DRAINED): _A.DRAINING,
    (_A.DRAINING, _F.EXITED): _A.EXITED,
    (_A.DRAINING, _F.LOST): _A.LOST,
}


def find_next_job_state(state: JobState, event: JobEvent) -> JobState | None:
    """Return where `event` takes a job in `state`, or None when that cannot happen."""
    return JOB_TRANSITIONS.get((state, event))


def find_next_attempt_state(state: AttemptState, event: AttemptEvent) -> AttemptState | None:
    """Return where `event` takes an attempt in `state`, or None when that cannot happen."""
    return ATTEMPT_TRANSITIONS.get((state, event))
