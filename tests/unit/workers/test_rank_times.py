"""What ranks did with the last minute, from what their pages showed now and then."""

from __future__ import annotations

import pytest

from workers.supervisor.pulse import Pulse
from workers.supervisor.times import TimeLine, sum_up


def shows(phase: str | None, since_s: float, *seconds: float) -> Pulse:
    return Pulse(phase=phase, phase_since_s=since_s, seconds=(*seconds, *[0.0] * 5)[:5])


def test_the_phase_that_a_rank_is_in_counts_up_to_now() -> None:
    assert sum_up(shows("data_wait", 95.0, 1.0, 2.0), 100.0) == [6.0, 2.0, 0.0, 0.0, 0.0]


def test_times_are_those_of_the_window() -> None:
    line = TimeLine(window_s=10.0)
    for second in range(31):
        line.add(second, {0: shows("compute", second, second * 0.4, second * 0.6)})

    times = line.find_times(0)

    assert times is not None
    assert times["window"] == 10.0
    assert times["data_wait"] == pytest.approx(4.0)
    assert times["compute"] == pytest.approx(6.0)
    assert times["idle"] == 0.0


def test_a_rank_that_is_stuck_is_seen_to_be() -> None:
    line = TimeLine()
    line.add(0.0, {0: shows("data_wait", 0.0)})
    line.add(30.0, {0: shows("data_wait", 0.0)})

    times = line.find_times(0)

    assert times is not None
    assert times["data_wait"] == 30.0


def test_of_a_rank_that_measures_nothing_or_has_just_begun_nothing_is_said() -> None:
    line = TimeLine()
    line.add(0.0, {0: shows(None, 0.0), 1: shows("compute", 0.0)})
    line.add(0.5, {0: shows(None, 0.0), 1: shows("compute", 0.0)})

    assert line.find_times(0) is None
    assert line.find_times(1) is None
    assert line.find_times(2) is None
