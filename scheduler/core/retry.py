"""What becomes of a job when its attempt has ended. Pure: no clock, no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scheduler.core.budget import MONTH_IS_SPENT, describe_spent
from scheduler.core.reasons import INFRASTRUCTURE_REASONS, Reason
from scheduler.core.spec import Health, Limits, RetrySpec
from scheduler.core.states import JobEvent

BACKOFF_SECONDS_MAX = 600.0

_USUAL = Health()
_EVICTIONS = frozenset({Reason.PREEMPTED, Reason.MIGRATED})

Outcome = Literal["succeeded", "failed", "stopped", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended, as its supervisors or the reconciler say.

    Attributes:
        stop_reason: why a stop had been asked for before the end, None when none had.
    """

    outcome: Outcome
    reason: str | None = None
    message: str | None = None
    stop_reason: str | None = None

    @property
    def is_infrastructure(self) -> bool:
        """Whether the fault is the machines' or ours, not the user's."""
        return self.outcome == "lost" or self.reason in INFRASTRUCTURE_REASONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to the job now.

    Attributes:
        delay_seconds: how long a requeued job waits before it may start again.
        user_failures, infra_failures: the counts including this end.
        is_eviction: whether the job made room, or moved; counted in its budget of evictions.
        keeps_deadline: whether the time of this attempt goes on counting towards
            `limits.wall_seconds`: it ended because the service wanted so.
    """

    event: JobEvent
    reason: str
    message: str
    delay_seconds: float = 0.0
    user_failures: int
    infra_failures: int
    is_eviction: bool = False
    keeps_deadline: bool = False


def decide_after_attempt(
    end: AttemptEnd,
    *,
    retry: RetrySpec,
    limits: Limits,
    health: Health = _USUAL,
    user_failures: int,
    infra_failures: int,
    keeps_size: bool = False,
) -> Verdict:
    """Return what becomes of the job; the counts given are those before this end.

    A stop that was asked for decides over how the code took it. Infrastructure faults never spend
    the user's budget.

    Args:
        keeps_size: whether the resize that it was stopped for was called off since.
    """
    settled = _settle(end, limits, keeps_size=keeps_size)
    if settled is not None:
        event, reason, message = settled
        return Verdict(
            event=event,
            reason=reason,
            message=message,
            user_failures=user_failures,
            infra_failures=infra_failures,
            is_eviction=reason in _EVICTIONS,
            keeps_deadline=event is JobEvent.REQUEUED,
        )
    is_infra = end.is_infrastructure
    user_failures += not is_infra
    infra_failures += is_infra
    count = infra_failures if is_infra else user_failures
    allowed = retry.max_infra_failures if is_infra else retry.max_user_failures
    lost = Reason.LEASE_LOST if end.outcome == "lost" else Reason.USER_CODE_ERROR
    reason = end.reason or lost
    told = end.message or "no further word from the ranks"
    if end.reason == Reason.STALL_DETECTED and health.on_stall == "fail":
        event, message, delay_s = JobEvent.FAILED, told, 0.0
    elif count > allowed:
        spent = f" (max_infra_failures = {allowed} is spent)" if is_infra else ""
        event, message, delay_s = JobEvent.FAILED, told + spent, 0.0
    else:
        event, message = JobEvent.REQUEUED, f"{reason}: {told} (retry {count} of {allowed})"
        reason = Reason.RETRY_BACKOFF
        delay_s = retry.backoff_seconds
        if not is_infra:
            delay_s = min(delay_s * 2.0 ** (count - 1), BACKOFF_SECONDS_MAX)
    return Verdict(
        event=event,
        reason=reason,
        message=message,
        delay_seconds=delay_s,
        user_failures=user_failures,
        infra_failures=infra_failures,
    )


def _settle(
    end: AttemptEnd, limits: Limits, *, keeps_size: bool
) -> tuple[JobEvent, str, str] | None:
    """Return the end that needs no counting, or None for a failure."""
    overran = f"ran longer than limits.wall_seconds = {limits.wall_seconds}"
    match end.stop_reason, end.outcome:
        case Reason.CANCEL_REQUESTED, _:
            return JobEvent.CANCELLED, Reason.CANCELLED_BY_USER, ""
        case Reason.PAUSE_REQUESTED, _:
            return JobEvent.PAUSED, Reason.PAUSED_BY_USER, ""
        case Reason.DEADLINE_REACHED, _ if limits.on_deadline == "pause":
            return JobEvent.PAUSED, Reason.PAUSED_BY_DEADLINE, overran
        case Reason.DEADLINE_REACHED, _:
            return JobEvent.FAILED, Reason.DEADLINE_EXCEEDED, overran
        case _, "succeeded":
            return JobEvent.SUCCEEDED, Reason.COMPLETED, ""
        case stop_reason, outcome:
            return _settle_cut_short(stop_reason, outcome, limits, keeps_size=keeps_size)


def _settle_cut_short(
    stop_reason: str | None, outcome: Outcome, limits: Limits, *, keeps_size: bool
) -> tuple[JobEvent, str, str] | None:
    """Return what the service wanted when it stopped the code, None when it did not.

    However the code took it: many a script ends with an error when it is asked to stop.
    """
    match stop_reason:
        case Reason.BUDGET_REACHED if limits.on_budget == "fail":
            return JobEvent.FAILED, Reason.BUDGET_EXCEEDED, describe_spent(limits)
        case Reason.BUDGET_REACHED:
            return JobEvent.PAUSED, Reason.PAUSED_BY_BUDGET, describe_spent(limits)
        case Reason.BUDGET_SPENT:
            return JobEvent.PAUSED, Reason.PAUSED_BY_BUDGET, MONTH_IS_SPENT
        case Reason.PREEMPTING:
            message = "made room for another job; goes on from its newest checkpoint"
            return JobEvent.REQUEUED, Reason.PREEMPTED, message
        case Reason.MIGRATING:
            message = "left its place so that others fit; goes on from its newest checkpoint"
            return JobEvent.REQUEUED, Reason.MIGRATED, message
        case Reason.RESIZING if keeps_size:
            message = "keeps its number of workers; goes on from its newest checkpoint"
            return JobEvent.REQUEUED, Reason.RESUMED, message
        case Reason.RESIZING:
            message = "has another number of workers; goes on from its newest checkpoint"
            return JobEvent.REQUEUED, Reason.RESIZED, message
        case _ if outcome == "stopped":
            return JobEvent.REQUEUED, Reason.RESUMED, "stopped by the service; goes on by itself"
        case _:
            return None
