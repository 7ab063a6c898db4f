"""How far forecasts were off, and what interval follows from that. Mutable, integers only.

A forecast of one run is a point. How much sooner or later jobs really started than their points
said, in octaves of the wait, is kept; the interval is cut out of the recent errors so that a tenth
of the starts come before it and a tenth after. When more or fewer do, the cut moves.

Source:
    Split conformal prediction with adaptive levels (Gibbs and Candès, NeurIPS 2021), one level for
    each side.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.octaves import OCTAVE, count_octaves, scale

_KEPT = 300
_FEW = 12
_SIDE_PPM = 100_000
_RATE_PPM = 20_000
_WIDEST = 6 * OCTAVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """When a job starts: one in ten before `p10_ms`, one in ten after `p90_ms`."""

    p10_ms: int
    p50_ms: int
    p90_ms: int


class Calibration:
    """Past errors, and the levels at which they are cut."""

    def __init__(self) -> None:
        self._errors: list[int] = []
        self._low_ppm = self._high_ppm = _SIDE_PPM
        self.num_inside = self.num_judged = 0

    def widen(self, point_ms: int, now_ms: int) -> Interval:
        """Return the interval around a point forecast."""
        wait_ms = max(1000, point_ms - now_ms)
        errors = sorted(self._errors)
        if len(errors) < _FEW:
            errors = sorted([*errors, -2 * OCTAVE, -OCTAVE, 0, 0, OCTAVE, 2 * OCTAVE])
        low = _cut(errors, self._low_ppm)
        high = _cut(errors, 1_000_000 - self._high_ppm)
        middle = _cut(errors, 500_000)
        return Interval(
            p10_ms=now_ms + scale(wait_ms, low),
            p50_ms=now_ms + scale(wait_ms, min(max(middle, low), high)),
            p90_ms=now_ms + scale(wait_ms, max(low, high)),
        )

    def judge(self, stated: Interval, point_ms: int, asked_ms: int, started_ms: int) -> None:
        """Learn from a job that was given `stated` and has started."""
        waited = count_octaves(max(1000, started_ms - asked_ms))
        error = waited - count_octaves(max(1000, point_ms - asked_ms))
        self._errors = [*self._errors[1 - _KEPT :], max(-_WIDEST, min(_WIDEST, error))]
        is_early, is_late = started_ms < stated.p10_ms, started_ms > stated.p90_ms
        self._low_ppm = _move(self._low_ppm, missed=is_early)
        self._high_ppm = _move(self._high_ppm, missed=is_late)
        self.num_judged += 1
        self.num_inside += not (is_early or is_late)


def _move(level_ppm: int, *, missed: bool) -> int:
    level_ppm += _RATE_PPM * (_SIDE_PPM - 1_000_000 * missed) // 1_000_000
    return max(1_000, min(400_000, level_ppm))


def _cut(errors: list[int], part_ppm: int) -> int:
    at = len(errors) * part_ppm // 1_000_000
    return errors[min(len(errors) - 1, max(0, at))]
