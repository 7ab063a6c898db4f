"""Asking for something when it has changed: one answer, as late as the asker allows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Protocol, TypeVar

from fastapi import Query

from api.streams import Streams

WaitSeconds = Annotated[int, Query(ge=0, le=60, description="Seconds to wait for a newer version.")]
AfterVersion = Annotated[
    int | None,
    Query(ge=0, le=2**31 - 1, description="The version you know; the present one if left out."),
]


class Versioned(Protocol):
    """What one may wait for: it has versions, and an end after which there are no more."""

    version: int
    finished_at: datetime | None


V = TypeVar("V", bound=Versioned)


async def await_newer(
    streams: Streams,
    topic: str,
    look: Callable[[], Awaitable[V]],
    *,
    after_version: int | None,
    timeout_seconds: float,
) -> V:
    """Return what `look` finds: once it is newer or has ended, or as it is when time is up.

    Args:
        topic: rung when it changes.
        after_version: what the caller knows; None: the version of the first look.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        # Counted before the look: what rings after it wakes the wait below.
        since = streams.count(topic)
        found = await look()
        known = after_version = found.version if after_version is None else after_version
        left = deadline - time.monotonic()
        has_news = found.version > known or found.finished_at is not None
        if has_news or left <= 0 or streams.is_closing:
            return found
        with streams.long_poll():
            await streams.wait(topic, since=since, timeout_seconds=left)
