"""What an attempt has used: how long, how many GPUs, in which months. Pure.

Months are those of UTC; instants are aware.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPart:
    """The part of a stretch of time that lies in one month.

    Attributes:
        month: such as `2031-05`.
    """

    month: str
    duration_ms: int


def count_ms(since: datetime, until: datetime) -> int:
    """Return the whole milliseconds from `since` to `until`, 0 when the clock went back."""
    return max(0, (until - since) // timedelta(milliseconds=1))


def name_month(instant: datetime) -> str:
    """Return the month of `instant`, such as `2031-05`."""
    return f"{instant.astimezone(UTC):%Y-%m}"


def begin_month(instant: datetime) -> datetime:
    """Return when the month of `instant` began."""
    utc = instant.astimezone(UTC)
    return utc.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def split_by_month(since: datetime, until: datetime) -> Iterator[MonthPart]:
    """Yield what lies in each month, in order; the last one also when it is empty."""
    while (month_end := _end_month(since)) < until:
        yield MonthPart(month=name_month(since), duration_ms=count_ms(since, month_end))
        since = month_end
    yield MonthPart(month=name_month(since), duration_ms=count_ms(since, until))


def hours_to_ms(hours: float) -> int:
    """Return GPU-hours, as people write them, in GPU-milliseconds."""
    return round(hours * HOUR_MS)


def _end_month(instant: datetime) -> datetime:
    return begin_month(begin_month(instant) + timedelta(days=32))
