"""What happened to a job, in order: `client.jobs.events`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainmaster._pages import Page, fetch_page
from trainmaster._stream import follow_events
from trainmaster._transport import Transport
from trainmaster.documents import Event
from trainmaster.resources.addresses import Ref, path_to


class Events:
    """The events of one job; `seq` counts them without gaps."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, job: Ref, *, limit: int | None = None, after: str | None = None) -> Page[Event]:
        """Return a page of events, oldest first; iterate over it for all of them."""
        path = path_to("jobs", job, "events")
        return fetch_page(self._transport, path, {"limit": limit, "after": after}, Event.parse)

    def stream(
        self,
        job: Ref,
        *,
        after: int | None = None,
        outage_seconds: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Yield events as they happen until the job has ended, each exactly once.

        Args:
            job: the job, or its id.
            after: the `seq` of the last event already known; None for all.
            outage_seconds: how long the service may be away at a stretch.
            stopped: asked at each sign of life, and ends the stream when it says so.
        """
        path = path_to("jobs", job, "events", "stream")
        for each in follow_events(
            self._transport,
            path,
            {},
            after=None if after is None else str(after),
            outage_seconds=outage_seconds,
            stopped=stopped,
        ):
            yield Event.parse(each.json())
