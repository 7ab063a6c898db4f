"""Jobs as the service's rows would have them: what decisions change, and what the core sees.

A decision is applied by compare-and-set on the version, as the service does it. What a job really
needs is in its row too, and never in what the core sees.
"""

from __future__ import annotations

from scheduler.core.cluster import Claim, JobView, Placement, Reservation, Shape
from scheduler.core.decisions import Admit, Explain, Hold, Keep, Reserve
from scheduler.core.reasons import Reason
from scheduler.core.states import JobState
from scheduler.sim.slots import Place
from scheduler.sim.trace import TraceJob

RowDecision = Admit | Hold | Explain | Reserve | Keep
"""The decisions that change a waiting job's row and nothing else."""

ALWAYS_SAVED_MS = 1 << 62
"""A stop in a replay loses no work: what the job had done is saved whenever it is asked to go."""

_REASONS_TO_WAIT: dict[str, str] = {
    Reason.PREEMPTING: Reason.PREEMPTED,
    Reason.MIGRATING: Reason.MIGRATED,
}


class JobRow:
    """One job from its submit to its end."""

    __slots__ = (
        "claim",
        "duration_left_ms",
        "end_ms",
        "evictions",
        "held_ms",
        "index",
        "job_id",
        "limit_ms",
        "message",
        "place",
        "placement",
        "project",
        "reason",
        "reservation",
        "resume_ms",
        "shape",
        "started_ms",
        "state",
        "stop_at_ms",
        "stop_reason",
        "submit_ms",
        "version",
        "waiting_since_ms",
    )

    def __init__(self, index: int, job: TraceJob, shape: Shape, *, limit_ms: int | None) -> None:
        self.index = index
        self.job_id = job.job_id
        self.project = job.vc
        self.shape = shape
        self.submit_ms = job.submit_ms
        self.limit_ms = limit_ms
        self.version = 1
        self.state = JobState.QUEUED
        self.reason: str = ""
        self.message = ""
        self.claim: Claim | None = None
        self.reservation: Reservation | None = None
        self.placement: Placement | None = None
        self.started_ms = 0
        self.held_ms = 0
        self.evictions = 0
        self.waiting_since_ms = job.submit_ms
        self.stop_reason: str | None = None
        # The truth, which the core is not told:
        self.duration_left_ms = job.duration_ms
        self.place: Place = ()
        self.resume_ms = 0
        self.end_ms = self.stop_at_ms = -1

    def render_view(self) -> JobView:
        """Return what the core sees now."""
        return JobView(
            job_id=self.job_id,
            version=self.version,
            state=self.state,
            sequence=self.index,
            submit_ms=self.submit_ms,
            project=self.project,
            shape=self.shape,
            limit_ms=self.limit_ms,
            served_ms=self.held_ms,
            evictions=self.evictions,
            waiting_since_ms=self.waiting_since_ms,
            reason=self.reason,
            message=self.message,
            claim=self.claim,
            reservation=self.reservation,
            placement=self.placement,
            started_ms=self.started_ms,
            saved_ms=ALWAYS_SAVED_MS,
            stop_reason=self.stop_reason,
        )

    def apply(self, decision: RowDecision) -> None:
        """Write what was decided; the caller has compared the version."""
        if isinstance(decision, Reserve):
            self.reservation = decision.reservation
        elif isinstance(decision, Keep):
            self.claim = decision.claim
        else:
            self.reason, self.message = decision.reason, decision.message
            if isinstance(decision, Admit):
                self.state = JobState.QUEUED
            elif isinstance(decision, Hold):
                self.state = JobState.PENDING
        self.version += 1

    def start(self, placement: Placement, place: Place, *, now_ms: int, resume_ms: int) -> None:
        """Give it its places; the first `resume_ms` there it is not served."""
        self.placement, self.place = placement, place
        self.claim = self.reservation = None
        self.state = JobState.RUNNING
        self.reason, self.message = Reason.TRAINING, ""
        self.started_ms = now_ms
        self.resume_ms = resume_ms
        self.end_ms = now_ms + resume_ms + self.duration_left_ms
        self.version += 1

    def ask_to_stop(self, reason: str, *, stop_at_ms: int) -> None:
        """Let it save; it goes on being served until it has stopped."""
        self.state = JobState.STOPPING
        self.reason = self.stop_reason = reason
        self.stop_at_ms = stop_at_ms
        self.version += 1

    def stop(self, now_ms: int) -> None:
        """Let it wait again, with all its progress."""
        held_ms = now_ms - self.started_ms
        self.held_ms += held_ms
        self.duration_left_ms -= max(0, held_ms - self.resume_ms)
        self.evictions += 1
        self.waiting_since_ms = now_ms
        self.state = JobState.QUEUED
        self.reason = _REASONS_TO_WAIT.get(self.reason, self.reason)
        self.stop_reason = None
        self.placement, self.place = None, ()
        self.end_ms = self.stop_at_ms = -1
        self.version += 1
