"""Log bytes of ranks, in the order in which they came, and how long each log is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Serial


class LogStream(Base):
    """The length of one log; an append is kept only if it starts there."""

    __tablename__ = "log_streams"

    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True
    )
    rank: Mapped[int] = mapped_column(primary_key=True)
    stream: Mapped[str] = mapped_column(String(16), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)


class LogChunk(Base):
    """Bytes of one log, as one append brought them.

    Attributes:
        offset: where in the log the first byte stands.
        data: the bytes; zlib when `is_compressed`.
    """

    __tablename__ = "log_chunks"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt_id: Mapped[str] = mapped_column(Id)
    rank: Mapped[int]
    stream: Mapped[str] = mapped_column(String(16))
    offset: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int]
    is_compressed: Mapped[bool] = mapped_column(default=False)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_log_chunks_job_id_id", "job_id", "id"),
        Index("uq_log_chunks_offset", "attempt_id", "rank", "stream", "offset", unique=True),
    )
