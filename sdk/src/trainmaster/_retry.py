"""When a failed request is sent again, and after how long. Pure: no clock, no network."""

from __future__ import annotations

import email.utils
import math
from datetime import datetime, timezone

from trainmaster._errors import APIConnectionError, APIError, APIStatusError

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 8.0

_REFUSED_UNDONE = frozenset({429})
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})


def retry_delay(error: APIError, *, tries: int, repeatable: bool, jitter: float) -> float | None:
    """Return the seconds to wait before sending again, or None when that must not or need not be.

    Args:
        error: what the last try met.
        tries: tries so far, at least 1.
        repeatable: whether sending twice has the effect of sending once: the method is safe or
            idempotent, or the request carries an idempotency key.
        jitter: uniform in [0, 1); spreads the clients of a server that restarts.
    """
    if not _may_repeat(error, repeatable=repeatable):
        return None
    ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(tries - 1, 16))
    backoff = ceiling * (0.5 + 0.5 * jitter)
    return max(backoff, error.retry_after or 0.0)


def parse_retry_after(text: str | None, *, now: datetime) -> float | None:
    """Return a Retry-After header (seconds or an HTTP date) as seconds from now, if usable."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = (moment - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _may_repeat(error: APIError, *, repeatable: bool) -> bool:
    if isinstance(error, APIConnectionError):
        return (repeatable or not error.sent) and error.should_retry is not False
    if not isinstance(error, APIStatusError):
        return False
    if error.status in _REFUSED_UNDONE:
        return error.should_retry is not False
    if not repeatable:
        return False
    if error.should_retry is not None:
        return error.should_retry
    # A 409 with a delay says that the first try of the same key is still being worked on.
    in_flight = error.status == 409 and error.retry_after is not None
    return error.status in _RETRYABLE or in_flight
