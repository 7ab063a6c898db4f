"""What a job has said: events, log lines, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster.documents.values import Resource, empty, instant, nested, parse_number


@dataclass(frozen=True, kw_only=True)
class Event(Resource):
    """One thing that happened to a job; `seq` counts them from 1 without gaps."""

    seq: int
    type: str
    job_id: str = ""
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    data: Mapping[str, Any] = empty(dict)
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class LogLine(Resource):
    """A line of one rank's output, without its end; it begins at byte `offset` of its stream."""

    id: str
    text: str = ""
    attempt_id: str = ""
    attempt: int = 1
    rank: int = 0
    stream: str = "stdout"
    offset: int = 0
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class MetricPoint(Resource):
    """One value of one metric; `time` is in unix seconds, by the rank's clock."""

    step: int
    time: float = 0.0
    value: float = field(metadata={"convert": parse_number})
    key: str = ""
    rank: int = 0
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class MetricSummary(Resource):
    """What is known of one metric of one rank without reading its points."""

    key: str
    rank: int = 0
    count: int = 0
    last: MetricPoint | None = nested(MetricPoint)
    min: float | None = field(default=None, metadata={"convert": parse_number})
    max: float | None = field(default=None, metadata={"convert": parse_number})


@dataclass(frozen=True, kw_only=True)
class MetricSeries(Resource):
    """The points of one metric of one rank, as three lists of equal length.

    `count` is how many there were before down-sampling.
    """

    key: str
    rank: int = 0
    steps: list[int] = empty(list)
    times: list[float] = empty(list)
    values: list[float] = field(
        default_factory=list,
        metadata={"convert": lambda values: [parse_number(value) for value in values]},
    )
    count: int = 0
