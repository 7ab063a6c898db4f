"""How long jobs really run, learned from those that have ended. Mutable, integers only.

Jobs with a declared limit are compared by the part of it that they used, the others by the time
they took. Each scale is cut into half-octaves; of each it is known how many jobs came so far and
how many ended there, for all jobs and for each project, a project's counts being filled up with
those of all where they are few.

Source:
    The product-limit estimator (Kaplan and Meier, 1958) over logarithmic bins.
"""

from __future__ import annotations

from scheduler.core.octaves import OCTAVE, count_octaves

_STEP = OCTAVE // 2
_ONE = 1 << 16
_UNIT = 1 << 10  # of a limit: the first bin ends at a 1024th of it
_SHORTEST_MS = 16_000
_BINS = 64
_FILL = 8
_KNOWN_MAX = 50_000
_PRIOR = _ONE // 8  # of an unknown bin: one job in eight ends within it
ENOUGH = 10
"""Fewer ended jobs than this say nothing."""

Counts = list[tuple[int, int]]


class Durations:
    """What ended jobs have shown."""

    def __init__(self) -> None:
        self._reached: dict[tuple[str, bool], list[int]] = {}
        self._ended: dict[tuple[str, bool], list[int]] = {}
        self.num_ended = 0
        self._known: dict[tuple[str, int | None, int, int], int] = {}

    def add(self, project: str, limit_ms: int | None, took_ms: int) -> None:
        """Learn from a job that has ended after `took_ms` on its places, in all attempts."""
        self.num_ended += 1
        self._known.clear()
        last = _find_bin(took_ms, limit_ms)
        for name in ("", project):
            key = (name, limit_ms is not None)
            reached = self._reached.setdefault(key, [0] * _BINS)
            ended = self._ended.setdefault(key, [0] * _BINS)
            for at in range(last + 1):
                reached[at] += 1
            ended[last] += 1

    def find_remaining(self, project: str, limit_ms: int | None, had_ms: int, part_ppm: int) -> int:
        """Return within how many ms `part_ppm` of the jobs that ran for `had_ms` have ended."""
        asked = (project, limit_ms, had_ms, part_ppm)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[asked] = self._find_remaining(project, limit_ms, had_ms, part_ppm)
        return known

    def _find_remaining(
        self, project: str, limit_ms: int | None, had_ms: int, part_ppm: int
    ) -> int:
        at = _find_bin(had_ms, limit_ms)
        target = _ONE * (1_000_000 - part_ppm) // 1_000_000
        last = _BINS - 1 if limit_ms is None else _find_bin(limit_ms, limit_ms)
        alive = _ONE
        while at < last:
            hazard = self._find_hazard(project, limit_ms is not None, at)
            after = alive * (_ONE - hazard) // _ONE
            if after <= target:
                start_ms = max(had_ms, _find_edge(at, limit_ms))
                end_ms = _find_edge(at + 1, limit_ms)
                within = (alive - target) * _ONE // max(1, alive - after)
                return max(1, start_ms + (end_ms - start_ms) * within // _ONE - had_ms)
            alive = after
            at += 1
        end_ms = _find_edge(last + 1, limit_ms) if limit_ms is None else limit_ms
        return max(1, end_ms - had_ms, had_ms >> 6)

    def _find_hazard(self, project: str, has_limit: bool, at: int) -> int:
        hazard = _PRIOR
        for name in ("", project):
            key = (name, has_limit)
            reached = self._reached.get(key)
            if reached is not None:
                ended = self._ended[key][at]
                hazard = (ended * _ONE + _FILL * hazard) // (reached[at] + _FILL)
        return hazard


def _find_bin(ms: int, limit_ms: int | None) -> int:
    value = ms // _SHORTEST_MS if limit_ms is None else ms * _UNIT // max(1, limit_ms)
    if value < 1:
        return 0
    return min(_BINS - 1, 1 + count_octaves(value) // _STEP)


def _find_edge(at: int, limit_ms: int | None) -> int:
    """Where a bin begins, in ms."""
    if at <= 0:
        return 0
    octaves, half = divmod(at - 1, 2)
    value = (
        (_ONE << octaves) * (92_682 if half else _ONE) // _ONE
    )  # 92682 = 2**16 times the root of 2
    if limit_ms is None:
        return value * _SHORTEST_MS // _ONE
    return value * limit_ms // (_ONE * _UNIT)
