"""The transition tables as a whole."""

import itertools

import pytest

from scheduler.core.states import (
    ATTEMPT_TRANSITIONS,
    JOB_TRANSITIONS,
    LIVE_STATES,
    TERMINAL_STATES,
    AttemptEvent,
    AttemptState,
    JobEvent,
    JobState,
    find_next_attempt_state,
    find_next_job_state,
)


def _reachable(start: JobState) -> set[JobState]:
    seen, front = {start}, [start]
    while front:
        state = front.pop()
        for (source, _), target in JOB_TRANSITIONS.items():
            if source is state and target not in seen:
                seen.add(target)
                front.append(target)
    return seen


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_nothing_leaves_a_terminal_state(state: JobState, event: JobEvent) -> None:
    assert find_next_job_state(state, event) is None


def test_every_state_is_reached_from_pending() -> None:
    assert _reachable(JobState.PENDING) == set(JobState)


@pytest.mark.parametrize("state", [state for state in JobState if state not in TERMINAL_STATES])
def test_every_live_state_can_still_end_in_each_way(state: JobState) -> None:
    assert _reachable(state) >= TERMINAL_STATES


def test_only_placing_gives_a_job_an_attempt() -> None:
    gains = {
        event
        for (source, event), target in JOB_TRANSITIONS.items()
        if target in LIVE_STATES and source not in LIVE_STATES
    }

    assert gains == {JobEvent.PLACED}


def test_success_is_only_reached_through_finalizing() -> None:
    sources = {s for (s, _), target in JOB_TRANSITIONS.items() if target is JobState.SUCCEEDED}

    assert sources == {JobState.FINALIZING}


def test_an_ended_attempt_stays_ended() -> None:
    ended = [state for state in AttemptState if not state.is_live]

    for state, event in itertools.product(ended, AttemptEvent):
        assert find_next_attempt_state(state, event) is None
    assert set(ATTEMPT_TRANSITIONS.values()) >= set(ended)
