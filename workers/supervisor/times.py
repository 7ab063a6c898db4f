"""What ranks did with the last stretch of their time, from pulses seen now and then. Pure."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from workers.supervisor.pulse import PHASES, Pulse

WINDOW_S = 60.0
_WINDOW_MIN_S = 1.0


class TimeLine:
    """The sums of each rank's phases over the last minute."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: collections.deque[tuple[float, dict[int, Sequence[float]]]]
        self._seen = collections.deque()

    def add(self, now_s: float, pulses: Mapping[int, Pulse]) -> None:
        """Take note of pulses."""
        sums: dict[int, Sequence[float]] = {
            rank: sum_up(pulse, now_s) for rank, pulse in pulses.items() if pulse.phase is not None
        }
        self._seen.append((now_s, sums))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - self._window_s:
            self._seen.popleft()

    def find_times(self, rank: int) -> dict[str, float] | None:
        """Return how long each phase lasted and the window, None while nothing can be said."""
        (end_s, last) = self._seen[-1] if self._seen else (0.0, {})
        for start_s, first in self._seen:
            if rank in first and rank in last and end_s - start_s >= _WINDOW_MIN_S:
                spent = [max(0.0, now - before) for now, before in zip(last[rank], first[rank])]
                times = {name: round(each, 3) for name, each in zip(PHASES, spent)}
                return {"window": round(end_s - start_s, 3), **times}
        return None


def sum_up(pulse: Pulse, now_s: float) -> list[float]:
    """Return how long each phase has lasted, the one that a rank is in included."""
    sums = list(pulse.seconds)
    if pulse.phase is not None:
        sums[PHASES.index(pulse.phase)] += max(0.0, now_s - pulse.phase_since_s)
    return sums
