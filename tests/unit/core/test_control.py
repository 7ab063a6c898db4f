"""What an action does in each state: the whole matrix."""

import pytest

from scheduler.core.control import Action, Already, AskStop, Effect, Now, SetHold, decide_action
from scheduler.core.errors import IllegalTransition
from scheduler.core.reasons import Reason
from scheduler.core.states import JobEvent, JobState, find_next_job_state

CANCEL = AskStop(reason=Reason.CANCEL_REQUESTED)
PAUSE = AskStop(reason=Reason.PAUSE_REQUESTED)
CANCELLED = Now(event=JobEvent.CANCELLED, reason=Reason.CANCELLED_BY_USER)
PAUSED = Now(event=JobEvent.PAUSED, reason=Reason.PAUSED_BY_USER)
RESUMED = Now(event=JobEvent.RESUMED, reason=Reason.RESUMED)
HELD, FREE, SAME, REFUSED = SetHold(is_held=True), SetHold(is_held=False), Already(), None

MATRIX: dict[str, dict[Action, Effect | None]] = {
    "pending": dict(zip(Action, [CANCELLED, PAUSED, SAME, HELD, FREE], strict=True)),
    "queued": dict(zip(Action, [CANCELLED, PAUSED, SAME, HELD, FREE], strict=True)),
    "starting": dict(zip(Action, [CANCEL, PAUSE, SAME, REFUSED, REFUSED], strict=True)),
    "running": dict(zip(Action, [CANCEL, PAUSE, SAME, REFUSED, REFUSED], strict=True)),
    "stopping": dict(zip(Action, [CANCEL, SAME, REFUSED, REFUSED, REFUSED], strict=True)),
    "paused": dict(zip(Action, [CANCELLED, SAME, RESUMED, REFUSED, REFUSED], strict=True)),
    "finalizing": dict.fromkeys(Action, REFUSED),
    "succeeded": dict.fromkeys(Action, REFUSED),
    "failed": dict.fromkeys(Action, REFUSED),
    "cancelled": {**dict.fromkeys(Action, REFUSED), Action.CANCEL: SAME},
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("state", JobState)
def test_each_action_in_each_state(state: JobState, action: Action) -> None:
    want = MATRIX[state][action]
    stop_reason = Reason.PAUSE_REQUESTED if state is JobState.STOPPING else None

    if want is None:
        with pytest.raises(IllegalTransition, match="needs one of"):
            decide_action("job_1", state, stop_reason, action)
    else:
        assert decide_action("job_1", state, stop_reason, action) == want
        if isinstance(want, Now):
            assert find_next_job_state(state, want.event) is not None


def test_a_cancel_overrules_a_pause_but_not_the_other_way_round() -> None:
    stopping = JobState.STOPPING

    assert decide_action("j", stopping, Reason.PAUSE_REQUESTED, Action.CANCEL) == CANCEL
    with pytest.raises(IllegalTransition):
        decide_action("j", stopping, Reason.CANCEL_REQUESTED, Action.PAUSE)


@pytest.mark.parametrize("stop_reason", [Reason.PREEMPTING, Reason.MIGRATING, Reason.NODE_DRAINING])
def test_a_job_that_makes_room_may_be_paused_and_needs_no_resume(stop_reason: Reason) -> None:
    stopping = JobState.STOPPING

    assert decide_action("j", stopping, stop_reason, Action.PAUSE) == PAUSE
    assert decide_action("j", stopping, stop_reason, Action.RESUME) == SAME


@pytest.mark.parametrize("stop_reason", [Reason.DEADLINE_REACHED, Reason.BUDGET_REACHED])
def test_a_pause_is_no_way_around_a_limit(stop_reason: Reason) -> None:
    with pytest.raises(IllegalTransition):
        decide_action("j", JobState.STOPPING, stop_reason, Action.PAUSE)
