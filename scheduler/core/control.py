"""What a user's action does to a job in a given state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from scheduler.core.errors import IllegalTransition
from scheduler.core.reasons import STOPS_THAT_GO_ON, Reason
from scheduler.core.states import JobEvent, JobState


class Action(StrEnum):
    """What a user may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The job changes at once."""

    event: JobEvent
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStop:
    """The attempt is asked to stop; the job changes when it has."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHold:
    """The job keeps its state and is held, or no longer held."""

    is_held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Already:
    """The job is as asked: the same request twice does no more than once."""


Effect = Now | AskStop | SetHold | Already

_S = JobState
_WAITING = frozenset({_S.PENDING, _S.QUEUED})
_ACTIVE = frozenset({_S.STARTING, _S.RUNNING})


def decide_action(job_id: str, state: JobState, stop_reason: str | None, action: Action) -> Effect:
    """Return what `action` does now.

    Args:
        stop_reason: why the live attempt was already asked to stop, None when it was not.

    Raises:
        IllegalTransition: the state does not allow it; the message names those that do.
    """
    match action:
        case Action.CANCEL:
            return _cancel(job_id, state, stop_reason)
        case Action.PAUSE:
            return _pause(job_id, state, stop_reason)
        case Action.RESUME:
            return _resume(job_id, state, stop_reason)
        case Action.HOLD | Action.RELEASE:
            if state not in _WAITING:
                raise _refusal(job_id, state, action, _WAITING)
            return SetHold(is_held=action is Action.HOLD)
        case _:
            assert_never(action)


def _cancel(job_id: str, state: JobState, stop_reason: str | None) -> Effect:
    if state is _S.CANCELLED or stop_reason == Reason.CANCEL_REQUESTED:
        return Already()
    if state in _WAITING or state is _S.PAUSED:
        return Now(event=JobEvent.CANCELLED, reason=Reason.CANCELLED_BY_USER)
    if state in _ACTIVE or state is _S.STOPPING:
        return AskStop(reason=Reason.CANCEL_REQUESTED)
    raise _refusal(job_id, state, Action.CANCEL, _WAITING | _ACTIVE | {_S.STOPPING, _S.PAUSED})


def _pause(job_id: str, state: JobState, stop_reason: str | None) -> Effect:
    if state is _S.PAUSED or stop_reason == Reason.PAUSE_REQUESTED:
        return Already()
    if state in _WAITING:
        return Now(event=JobEvent.PAUSED, reason=Reason.PAUSED_BY_USER)
    if state in _ACTIVE or stop_reason in STOPS_THAT_GO_ON:
        return AskStop(reason=Reason.PAUSE_REQUESTED)
    raise _refusal(job_id, state, Action.PAUSE, _WAITING | _ACTIVE)


def _resume(job_id: str, state: JobState, stop_reason: str | None) -> Effect:
    if state is _S.PAUSED:
        return Now(event=JobEvent.RESUMED, reason=Reason.RESUMED)
    if state in _WAITING | _ACTIVE or stop_reason in STOPS_THAT_GO_ON:
        return Already()
    raise _refusal(job_id, state, Action.RESUME, {_S.PAUSED})


def _refusal(
    job_id: str, state: JobState, action: Action, needs: set[JobState] | frozenset[JobState]
) -> IllegalTransition:
    return IllegalTransition(job_id, state, action, sorted(needs))
