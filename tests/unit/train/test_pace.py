"""How often the ranks ask each other."""

from hypothesis import given
from hypothesis import strategies as st

from trainmaster._pace import AGREE_EVERY_S, INTERVAL_STEPS_MAX, plan_interval


@given(steps=st.integers(1, 10_000), seconds=st.floats(0, 1e6))
def test_the_next_question_is_never_far(steps: int, seconds: float) -> None:
    interval = plan_interval(steps, seconds)

    assert 1 <= interval <= INTERVAL_STEPS_MAX
    # Unless every step is asked about, the wait is as planned, if the speed stays what it was.
    assert interval == 1 or interval * seconds / steps <= AGREE_EVERY_S


def test_long_steps_are_asked_about_every_time() -> None:
    assert plan_interval(1, 10.0) == 1


def test_short_steps_are_asked_about_ever_more_rarely() -> None:
    interval, chosen = 1, []
    for _ in range(8):
        interval = plan_interval(interval, interval * 0.001)
        chosen.append(interval)

    assert chosen == [2, 4, 8, 16, 32, 32, 32, 32]
