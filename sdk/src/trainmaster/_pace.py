"""How many steps to go until the ranks next ask each other whether to stop or save. Pure."""

from __future__ import annotations

AGREE_EVERY_S = 0.25
INTERVAL_STEPS_MAX = 32  # bounds the wait when steps turn slow right after an agreement


def plan_interval(steps: int, seconds: float) -> int:
    """Return how many steps to go, given how long the last ones took.

    Args:
        steps: since the last agreement, >= 1.
        seconds: that they took, >= 0.
    """
    limit = min(INTERVAL_STEPS_MAX, 2 * steps)
    if seconds > 0:
        limit = int(min(limit, AGREE_EVERY_S * steps / seconds))
    return max(1, limit)
