"""Appending to a log: kept once, at the place it belongs. Knows no HTTP."""

from __future__ import annotations

import zlib
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from models import LogChunk, LogStream, announce
from scheduler.core.errors import Invalid, OffsetMismatch

APPEND_BYTES_MAX = 1024 * 1024
_WORTH_PACKING_BYTES = 256


def logs_topic(job_id: str) -> str:
    """Return the doorbell topic of a job's logs."""
    return f"logs:{job_id}"


def append_log(
    session: Session,
    member: Membership,
    *,
    rank: int,
    stream: str,
    offset: int,
    data: bytes,
    now: datetime,
) -> int:
    """Append `data` and return the new length of the log.

    Bytes that are already there are not stored again, so the same call twice does no more than
    once.

    Raises:
        Invalid: the rank does not run on this node.
        OffsetMismatch: the bytes leave a gap, or overlap the end of the log.
    """
    if rank not in {each["rank"] for each in member.node.ranks}:
        raise Invalid(f"rank {rank} does not run on this node: send the logs of its own ranks")
    key = (member.attempt.id, rank, stream)
    log = session.get(LogStream, key)
    length = 0 if log is None else log.length
    end = offset + len(data)
    if end == length and data:
        return length  # the answer to the first try was lost
    if offset != length:
        raise OffsetMismatch(length)
    if not data:
        return length
    if log is None:
        session.add(LogStream(attempt_id=key[0], rank=rank, stream=stream, length=end))
        session.flush()
    else:
        grown = session.execute(
            update(LogStream)
            .where(
                LogStream.attempt_id == key[0],
                LogStream.rank == rank,
                LogStream.stream == stream,
                LogStream.length == length,
            )
            .values(length=end)
        )
        if grown.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE gives a cursor result
            raise OffsetMismatch(length)
    packed = zlib.compress(data, 1) if len(data) >= _WORTH_PACKING_BYTES else data
    is_compressed = len(packed) < len(data)
    session.add(
        LogChunk(
            job_id=member.job.id,
            attempt_id=key[0],
            rank=rank,
            stream=stream,
            offset=offset,
            length=len(data),
            is_compressed=is_compressed,
            data=packed if is_compressed else data,
            created_at=now,
        )
    )
    announce(session, logs_topic(member.job.id))
    return end


def unpack_chunk(data: bytes, *, is_compressed: bool) -> bytes:
    """Return the bytes of a chunk as they were appended."""
    return zlib.decompress(data) if is_compressed else data
