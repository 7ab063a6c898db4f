"""When a request is sent again, and after how long."""

from datetime import UTC, datetime
from typing import Any

import pytest

from trainmaster._errors import APIConnectionError, APIError, APIResponseError, status_error
from trainmaster._retry import parse_retry_after, retry_delay

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def status(code: int, **facts: Any) -> APIError:
    return status_error(code, {}, **facts)


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        pytest.param(APIConnectionError("cut"), True, True, id="a cut is repeated if it may be"),
        pytest.param(APIConnectionError("cut"), False, False, id="and never if it may not"),
        pytest.param(APIConnectionError("no", sent=False), False, True, id="what never left may"),
        pytest.param(APIResponseError("html"), True, False, id="nonsense stays nonsense"),
        *[pytest.param(status(code), True, True) for code in (408, 429, 500, 502, 503, 504)],
        *[pytest.param(status(code), False, False) for code in (408, 500, 502, 503, 504)],
        *[pytest.param(status(code), True, False) for code in (400, 401, 404, 409, 412, 422, 501)],
        pytest.param(status(429), False, True, id="a rate limit means that nothing was done"),
        pytest.param(status(409, retry_after=1), True, True, id="the same key is in work"),
        pytest.param(status(409, retry_after=1), False, False),
        pytest.param(status(503, should_retry=False), True, False, id="the server's word counts"),
        pytest.param(status(429, should_retry=False), True, False),
        pytest.param(status(404, should_retry=True), True, True),
        pytest.param(status(404, should_retry=True), False, False),
    ],
)
def test_only_what_is_safe_and_may_help_is_repeated(
    error: APIError, repeatable: bool, again: bool
) -> None:
    delay = retry_delay(error, tries=1, repeatable=repeatable, jitter=0.5)

    assert (delay is not None) == again


def test_delays_grow_up_to_a_ceiling_and_are_spread() -> None:
    error = APIConnectionError("cut")
    longest = [retry_delay(error, tries=n, repeatable=True, jitter=1.0) for n in range(1, 9)]
    shortest = [retry_delay(error, tries=n, repeatable=True, jitter=0.0) for n in range(1, 9)]

    assert longest == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert shortest == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert retry_delay(error, tries=10**6, repeatable=True, jitter=1.0) == 8.0


def test_the_server_may_ask_for_more_time_but_not_for_less() -> None:
    assert retry_delay(status(503, retry_after=30), tries=1, repeatable=True, jitter=0) == 30
    assert retry_delay(status(503, retry_after=0), tries=3, repeatable=True, jitter=1) == 1.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_a_delay_is_read_in_both_forms(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, now=NOW) == seconds
