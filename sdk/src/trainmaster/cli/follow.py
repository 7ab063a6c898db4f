"""Follows one job to its end: state, metrics and log lines as they come, in one view.

Three feeds run in threads, each resuming by itself over outages; the caller's thread draws. Knows
nothing about how a view looks.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainmaster._errors import APIError
from trainmaster.cli.views import LiveView, PlainView, View
from trainmaster.documents import Job, LogLine, MetricPoint

if TYPE_CHECKING:
    from rich.console import Console

    from trainmaster.client import Client

Item = Job | LogLine | list[MetricPoint] | APIError

_TICK_SECONDS = 0.1
_PROGRESS_SECONDS = 2.0
_DRAIN_SECONDS = 15.0
_QUEUE_ITEMS_MAX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowResult:
    """How it ended, and when the first metric point was measured (unix seconds), if any was."""

    job: Job
    first_point_at: float | None


def follow_job(
    client: Client,
    job_id: str,
    console: Console | None = None,
    *,
    view: View | None = None,
    rank: int | None = None,
    outage_seconds: float = 600.0,
) -> FollowResult:
    """Show a job until it has ended, and return how. The job does not notice.

    Args:
        client: the service.
        job_id: the job.
        console: where to draw: live on a terminal, plain lines elsewhere.
        view: draws instead of the one for `console`.
        rank: only this rank's log.
        outage_seconds: how long the service may be away at a stretch.

    Raises:
        NotFoundError: there is no such job.
        APIConnectionError: the service was away for longer than that.
        KeyboardInterrupt: as pressed; the job goes on.
    """
    first = client.jobs.get(job_id)
    screen = view or _view_for(console)
    stop = threading.Event()
    feeds = _Feeds(client, first, rank=rank, outage_seconds=outage_seconds, stop=stop)
    job, first_point_at = first, None
    try:
        screen.show_job(first)
        for item in feeds.items(tick=screen.tick):
            if isinstance(item, Job):
                job = item
                screen.show_job(item)
            elif isinstance(item, LogLine):
                screen.show_line(item)
            elif isinstance(item, list):
                times = [point.time for point in item if point.time > 0]
                if first_point_at is not None:
                    times.append(first_point_at)
                first_point_at = min(times, default=None)
                screen.show_points(item)
            else:
                screen.note(f"part of the view is gone: {item}")
        screen.show_end(job)
    finally:
        stop.set()
        screen.close()
    return FollowResult(job=job, first_point_at=first_point_at)


class _Feeds:
    """The three sources of a view, merged into one sequence that ends with the job."""

    def __init__(
        self,
        client: Client,
        job: Job,
        *,
        rank: int | None,
        outage_seconds: float,
        stop: threading.Event,
    ) -> None:
        self._client = client
        self._job = job
        self._rank = rank
        self._outage_seconds = outage_seconds
        self._stop = stop
        self._queue: queue.Queue[tuple[str, Item | None]] = queue.Queue(_QUEUE_ITEMS_MAX)

    def items(self, *, tick: Callable[[], None]) -> Iterator[Item]:
        """Yield what arrives; `tick` is called whenever nothing does, ten times a second."""
        sources: dict[str, Callable[[], Iterator[Item]]] = {
            "job": self._job_versions,
            "logs": self._log_lines,
            "metrics": self._metric_points,
        }
        for name, source in sources.items():
            threading.Thread(
                target=self._pump, args=(name, source), name=f"follow-{name}", daemon=True
            ).start()
        is_open = set(sources)
        drained_at = float("inf")
        while is_open and time.monotonic() < drained_at:
            try:
                name, item = self._queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                tick()
                continue
            if item is None:
                is_open.discard(name)
                if name == "job":
                    drained_at = time.monotonic() + _DRAIN_SECONDS
            elif isinstance(item, APIError) and name == "job":
                raise item
            else:
                yield item

    def _pump(self, name: str, source: Callable[[], Iterator[Item]]) -> None:
        try:
            for item in source():
                self._offer(name, item)
                if self._stop.is_set():
                    return
        except APIError as error:
            self._offer(name, error)
        except RuntimeError:
            if not self._stop.is_set():  # else the client was closed: nobody looks any more
                raise
        finally:
            self._offer(name, None)

    def _offer(self, name: str, item: Item | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put((name, item), timeout=1.0)
                return
            except queue.Full:
                continue

    def _job_versions(self) -> Iterator[Item]:
        job = self._job
        while not job.is_terminal and not self._stop.is_set():
            asked_at = time.monotonic()
            # Progress is no new version, so the wait is short.
            job = self._client.jobs.poll(
                job,
                after_version=job.version,
                wait_seconds=_PROGRESS_SECONDS,
                outage_seconds=self._outage_seconds,
            )
            yield job
            if not job.is_terminal and time.monotonic() - asked_at < _TICK_SECONDS:
                self._stop.wait(_TICK_SECONDS)

    def _log_lines(self) -> Iterator[Item]:
        yield from self._client.jobs.logs.follow(
            self._job,
            rank=self._rank,
            outage_seconds=self._outage_seconds,
            stopped=self._stop.is_set,
        )

    def _metric_points(self) -> Iterator[Item]:
        yield from self._client.jobs.metrics.follow(
            self._job, outage_seconds=self._outage_seconds, stopped=self._stop.is_set
        )


def _view_for(console: Console | None) -> View:
    if console is None:
        from rich.console import Console  # noqa: PLC0415  only when no view or console is given

        console = Console()
    return LiveView(console) if console.is_terminal else PlainView(console)
