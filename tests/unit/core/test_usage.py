"""What an attempt has used, month by month."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.usage import MonthPart, count_ms, hours_to_ms, name_month, split_by_month

DAY_MS = 86_400_000
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
INSTANTS = st.timedeltas(timedelta(0), timedelta(days=7000)).map(lambda after: BEGIN + after)


def test_an_attempt_over_new_year_belongs_to_both_years() -> None:
    parts = split_by_month(datetime(2030, 12, 31, tzinfo=UTC), datetime(2031, 1, 3, tzinfo=UTC))

    assert list(parts) == [
        MonthPart(month="2030-12", duration_ms=DAY_MS),
        MonthPart(month="2031-01", duration_ms=2 * DAY_MS),
    ]


@given(INSTANTS, st.timedeltas(timedelta(0), timedelta(days=200)))
def test_the_months_are_the_whole(since: datetime, duration: timedelta) -> None:
    until = since + duration

    parts = list(split_by_month(since, until))

    # Each border may cut off part of a millisecond.
    whole_ms = count_ms(since, until)
    assert whole_ms - len(parts) < sum(part.duration_ms for part in parts) <= whole_ms
    assert [part.month for part in parts] == sorted({part.month for part in parts})
    assert parts[0].month == name_month(since)


def test_a_clock_that_went_back_uses_nothing() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)

    assert count_ms(now, now - timedelta(seconds=1)) == 0
    assert list(split_by_month(now, now - timedelta(seconds=1))) == [
        MonthPart(month="2030-01", duration_ms=0)
    ]


def test_hours_are_whole_milliseconds() -> None:
    assert hours_to_ms(0.1) == 360_000
