"""What the ranks of a job printed: `client.jobs.logs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainmaster._calls import Call, Query
from trainmaster._pages import Page, fetch_page
from trainmaster._stream import follow_events
from trainmaster._transport import Transport
from trainmaster.documents import LogLine
from trainmaster.resources.addresses import Ref, path_to


class Logs:
    """The output of every rank and attempt, addressed by byte offset."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        job: Ref,
        *,
        rank: int | None = None,
        stream: str | None = None,
        attempt: str | None = None,
        tail: int | None = None,
        grep: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[LogLine]:
        """Return a page of log lines; iterate over it for all of them.

        Args:
            job: the job, or its id.
            rank: only this rank.
            stream: only `stdout` or `stderr`.
            attempt: only this attempt.
            tail: only the last so many lines.
            grep: only lines that contain this text.
            limit: lines per page.
            after: the cursor to go on from.
        """
        query = {**_filters(rank, stream, attempt, grep), "tail": tail}
        path = path_to("jobs", job, "logs")
        page = {"limit": limit, "after": after}
        return fetch_page(self._transport, path, {**query, **page}, LogLine.parse)

    def text(
        self,
        job: Ref,
        *,
        rank: int | None = None,
        stream: str | None = None,
        attempt: str | None = None,
        tail: int | None = None,
        grep: str | None = None,
    ) -> str:
        """Return the log as one text; bytes that are no UTF-8 become U+FFFD."""
        call = Call(
            method="GET",
            path=path_to("jobs", job, "logs"),
            query={**_filters(rank, stream, attempt, grep), "tail": tail},
            headers={"Accept": "text/plain"},
        )
        return self._transport.send(call).content.decode("utf-8", errors="replace")

    def follow(
        self,
        job: Ref,
        *,
        rank: int | None = None,
        stream: str | None = None,
        attempt: str | None = None,
        grep: str | None = None,
        after: str | None = None,
        outage_seconds: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[LogLine]:
        """Yield lines as they are written until the job has ended, each exactly once.

        `after` is the `id` of the last line already known; the filters are those of `list`.
        """
        path = path_to("jobs", job, "logs", "stream")
        for each in follow_events(
            self._transport,
            path,
            _filters(rank, stream, attempt, grep),
            after=after,
            outage_seconds=outage_seconds,
            stopped=stopped,
        ):
            if each.event in {"log", "message"}:
                yield LogLine.parse(each.json())


def _filters(rank: int | None, stream: str | None, attempt: str | None, grep: str | None) -> Query:
    return {"rank": rank, "stream": stream, "attempt": attempt, "grep": grep}
