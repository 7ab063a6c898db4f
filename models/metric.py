"""Metric points, in chunks of packed columns, and how far each stream has been stored."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Serial


class MetricStream(Base):
    """How many spool lines of one rank have been stored: what makes ingestion exactly-once."""

    __tablename__ = "metric_streams"

    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True
    )
    stream: Mapped[str] = mapped_column(String(16), primary_key=True)
    high_water: Mapped[int] = mapped_column(BigInteger)


class MetricChunk(Base):
    """Points of one key, one rank and one attempt, in the order in which they came.

    Attributes:
        steps: little-endian int64, `count` of them.
        times: little-endian float64, Unix seconds.
        values: little-endian float64; NaN and infinities included.
        value_min, value_max: over the finite values; None when there is none.
    """

    __tablename__ = "metric_chunks"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt_id: Mapped[str] = mapped_column(Id)
    key: Mapped[str] = mapped_column(String(128))
    rank: Mapped[int]
    count: Mapped[int]
    steps: Mapped[bytes] = mapped_column(LargeBinary)
    times: Mapped[bytes] = mapped_column(LargeBinary)
    values: Mapped[bytes] = mapped_column(LargeBinary)
    value_min: Mapped[float | None] = mapped_column(Float)
    value_max: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        Index("ix_metric_chunks_series", "job_id", "key", "rank", "id"),
        Index("ix_metric_chunks_tail", "attempt_id", "rank", "key", "id"),
    )
