"""The chunks of a job's logs, as they lie in the database. Knows no lines and no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.logs.ingest import APPEND_BYTES_MAX, unpack_chunk
from models import LogChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which lines are wanted; None: all.

    Attributes:
        attempt_id: of one attempt only.
        grep: only lines that contain these bytes.
    """

    job_id: str
    rank: int | None = None
    stream: str | None = None
    attempt_id: str | None = None
    grep: bytes | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on chunks."""
        wanted = [LogChunk.job_id == self.job_id]
        if self.rank is not None:
            wanted.append(LogChunk.rank == self.rank)
        if self.stream is not None:
            wanted.append(LogChunk.stream == self.stream)
        if self.attempt_id is not None:
            wanted.append(LogChunk.attempt_id == self.attempt_id)
        return wanted


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk, without its bytes."""

    id: int
    attempt_id: str
    rank: int
    stream: str
    offset: int
    length: int
    created_at: datetime


Log = tuple[str, int, str]
"""Attempt, rank and stream."""


def find_chunk(session: Session, conditions: Sequence[ColumnElement[bool]]) -> Chunk | None:
    """Return the first chunk that meets the conditions."""
    found = list_chunks(session, conditions, limit=1)
    return found[0] if found else None


def list_chunks(
    session: Session,
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    is_descending: bool = False,
) -> list[Chunk]:
    """Return chunks that meet the conditions, in the order in which they came or the reverse."""
    order = LogChunk.id.desc() if is_descending else LogChunk.id
    rows = session.execute(
        select(
            LogChunk.id,
            LogChunk.attempt_id,
            LogChunk.rank,
            LogChunk.stream,
            LogChunk.offset,
            LogChunk.length,
            LogChunk.created_at,
        )
        .where(*conditions)
        .order_by(order)
        .limit(limit)
    )
    return [Chunk(*row) for row in rows]


def load_chunk(session: Session, chunk_id: int) -> bytes:
    """Return the bytes of one chunk."""
    row = session.execute(
        select(LogChunk.data, LogChunk.is_compressed).where(LogChunk.id == chunk_id)
    ).one()
    return unpack_chunk(row.data, is_compressed=row.is_compressed)


def load_chunks(session: Session, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    """Return the bytes of several chunks, by id."""
    rows = session.execute(
        select(LogChunk.id, LogChunk.data, LogChunk.is_compressed).where(LogChunk.id.in_(chunk_ids))
    )
    return {row.id: unpack_chunk(row.data, is_compressed=row.is_compressed) for row in rows}


def read_raw(session: Session, log: Log, start: int, stop: int) -> bytes:
    """Return the bytes of one log from `start` up to and without `stop`, as far as they exist."""
    attempt_id, rank, stream = log
    rows = session.execute(
        select(LogChunk.offset, LogChunk.data, LogChunk.is_compressed)
        .where(
            LogChunk.attempt_id == attempt_id,
            LogChunk.rank == rank,
            LogChunk.stream == stream,
            LogChunk.offset > start - APPEND_BYTES_MAX,
            LogChunk.offset < stop,
            LogChunk.offset + LogChunk.length > start,
        )
        .order_by(LogChunk.offset)
    )
    pieces = []
    for row in rows:
        data = unpack_chunk(row.data, is_compressed=row.is_compressed)
        pieces.append(data[max(0, start - row.offset) : stop - row.offset])
    return b"".join(pieces)
