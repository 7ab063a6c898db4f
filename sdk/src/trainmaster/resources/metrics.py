"""What a job measured: `client.jobs.metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainmaster._errors import APIResponseError
from trainmaster._pages import fetch_page
from trainmaster._stream import follow_events
from trainmaster._transport import Transport
from trainmaster.documents import MetricPoint, MetricSeries, MetricSummary
from trainmaster.resources.addresses import Ref, path_to


class Metrics:
    """The metrics of one job: a summary of each, whole series, and points as they come."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def summary(self, job: Ref) -> list[MetricSummary]:
        """Return each metric of each rank with its count, range and last point."""
        path = path_to("jobs", job, "metrics")
        return list(fetch_page(self._transport, path, {}, MetricSummary.parse))

    def series(
        self,
        job: Ref,
        key: str,
        *,
        points: int | None = None,
        rank: int | None = None,
        attempt: str | int | None = None,
    ) -> MetricSeries:
        """Return one metric of one rank, down-sampled to at most `points` points.

        `attempt` (number or id) shows all points of that attempt, those that were redone included.
        """
        query = {"key": key, "points": points, "rank": rank, "attempt": attempt}
        return MetricSeries.parse(self._transport.get(path_to("jobs", job, "metrics"), query))

    def follow(
        self,
        job: Ref,
        *,
        key: str | None = None,
        rank: int | None = None,
        after: str | None = None,
        outage_seconds: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[MetricPoint]]:
        """Yield points, in the batches they arrive in, until the job has ended."""
        path = path_to("jobs", job, "metrics", "stream")
        for each in follow_events(
            self._transport,
            path,
            {"key": key, "rank": rank},
            after=after,
            outage_seconds=outage_seconds,
            stopped=stopped,
        ):
            document = each.json()
            points = document.get("points") if isinstance(document, dict) else None
            if not isinstance(points, list):
                raise APIResponseError(f"event {each.event} of {path} carries no points")
            yield [MetricPoint.parse(point) for point in points]
