"""One scheduling pass: `step(state, deltas, now_ms) → (state, plan)`; the only entry point.

Deterministic: equal states, deltas and instants give equal plans, byte for byte. The state that is
given is used up; go on with the one that is returned. The pass is level-triggered: it looks at
where things are, so a delta that is lost, doubled or late costs latency at most.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.core.decisions import Plan
from scheduler.core.deltas import Delta
from scheduler.core.invariants import check
from scheduler.core.passing import Pass
from scheduler.core.state import State


def step(state: State, deltas: Sequence[Delta], now_ms: int) -> tuple[State, Plan]:
    """Decide what starts, what makes room, what waits and why.

    Args:
        state: what the last pass left.
        deltas: what has been seen since, oldest first.
        now_ms: milliseconds since the epoch.

    Returns:
        The state as it will be once the plan is applied, and the plan.
    """
    for delta in deltas:
        state.apply(delta, now_ms)
    plan = Pass(state, now_ms).run()
    if state.is_checked:
        check(state)
    return state, plan
