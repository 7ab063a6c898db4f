"""Failures of the HTTP library, and answers of 400 and more, become our exceptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import httpx

from trainmaster._calls import Call
from trainmaster._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    status_error,
)
from trainmaster._retry import parse_retry_after
from trainmaster._settings import Settings

_MAX_PROBLEM_BYTES = 1024 * 1024


@contextmanager
def translated(call: Call, settings: Settings) -> Iterator[None]:
    """Turn what the HTTP library raises inside into our exceptions."""
    try:
        yield
    except httpx.TimeoutException as error:
        never_left = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        raise APITimeoutError(
            f"{settings.url} did not answer {call.method} {call.path} in time",
            sent=not never_left,
        ) from error
    except httpx.ConnectError as error:
        raise _unreachable(error, settings) from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise APIConnectionError(
            f"the connection to {settings.url} broke during {call.method} {call.path} "
            f"({str(error) or type(error).__name__})"
        ) from error
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{call.path!r} makes no address: {error}") from error


def read_problem(response: httpx.Response, settings: Settings) -> APIStatusError:
    """Return the exception for an answer of 400 or more."""
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > _MAX_PROBLEM_BYTES:
            break
    try:
        problem = json.loads(content)
    except ValueError:
        problem = {"detail": f"{settings.url} answered {response.status_code}"}
    said = response.headers.get("x-should-retry")
    return status_error(
        response.status_code,
        problem if isinstance(problem, dict) else {},
        request_id=response.headers.get("x-request-id"),
        retry_after=parse_retry_after(
            response.headers.get("retry-after"), now=datetime.now(timezone.utc)
        ),
        should_retry=None if said is None else said.strip().lower() == "true",
    )


def _unreachable(error: httpx.ConnectError, settings: Settings) -> APIConnectionError:
    if "CERTIFICATE" in str(error).upper():
        refused = APIConnectionError(
            f"the certificate of {settings.url} is not trusted ({error}): "
            "set SSL_CERT_FILE to your authority's certificate",
            sent=False,
        )
        refused.should_retry = False
        return refused
    start = "start it with `python -m api all`, or " if settings.is_loopback else ""
    return APIConnectionError(
        f"cannot reach Trainmaster at {settings.url} ({error}): "
        f"{start}set TRAINMASTER_URL to where it runs",
        sent=False,
    )
