"""A state that is kept up without deciding: for questions, beside the scheduler that acts.

What waits stands in its line and prices are current, as a pass would have it; nothing is placed,
so the state stays what the rows say.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core.deltas import Delta
from scheduler.core.eligibility import find_hold
from scheduler.core.state import State


def follow(state: State, deltas: Iterable[Delta], now_ms: int) -> None:
    """Take in what has been seen, oldest first, and let everybody stand where they would."""
    for delta in deltas:
        state.apply(delta, now_ms)
    for job_id in state.pop_due(now_ms):
        if job_id in state.jobs:
            state.unjudged[job_id] = None
    unjudged, state.unjudged = state.unjudged, {}
    for job_id in unjudged:
        entry = state.jobs.get(job_id)
        if entry is None or not entry.view.is_waiting or entry.view.claim is not None:
            continue
        if find_hold(entry.view, state.queues, now_ms) is None:
            state.list_waiting(entry)
            continue
        state.unlist(entry)
        if entry.view.not_before_ms > now_ms:
            state.set_timer(entry.view.not_before_ms, job_id)
    if state.tenants.refresh(state.count_capacity(), now_ms):
        state.reprice()
