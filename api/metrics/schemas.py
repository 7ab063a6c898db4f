"""Metrics as users get them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope

Number = float | Literal["NaN", "Infinity", "-Infinity"]


class MetricPoint(BaseModel):
    """One value of one metric."""

    step: int
    time: float = Field(description="Unix seconds, by the clock of the rank.")
    value: Number


class MetricSummary(BaseModel):
    """What is known of one metric of one rank."""

    object: Literal["metric"] = "metric"
    key: str = Field(examples=["train/loss"])
    rank: int
    count: int = Field(description="Points.")
    last: MetricPoint
    min: float | None = Field(description="Of the finite values; null when there is none.")
    max: float | None


class MetricList(ListEnvelope[MetricSummary]):
    """One entry for each key and rank, by name. All of them: there is no next page."""


class MetricSeries(BaseModel):
    """The points of one metric of one rank, as columns of equal length."""

    object: Literal["metric_series"] = "metric_series"
    key: str
    rank: int
    attempt: int | None = Field(description="The attempt that was asked for; null: all, joined.")
    count: int = Field(description="Points before down-sampling.")
    steps: list[int]
    times: list[float]
    values: list[Number]


class StreamedPoint(MetricPoint):
    """One point, with where it comes from."""

    key: str
    rank: int
    attempt: int


class MetricEvent(BaseModel):
    """Data of an event `metrics`."""

    points: list[StreamedPoint]
