"""Following a job's points as they are stored. Knows no HTTP.

Chunks grow at their end, so a position says how much has been seen of each chunk that may still
grow, and up to which chunk all others have been seen whole.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from api.errors import BadCursor
from api.metrics.points import Points, unpack
from api.metrics.series import SeriesFilter
from api.metrics.store import CHUNK_POINTS
from models import Attempt, MetricChunk

CURSOR_CHARS_MAX = 16_384
_CURSOR_BYTES_MAX = 256 * 1024
_PAGE_CHUNKS = 200
_PAGE_POINTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Points of one key, rank and attempt that have not been seen before."""

    key: str
    rank: int
    attempt_id: str
    points: Points


class PointFollower:
    """Goes forward through the points of a job, each once."""

    def __init__(self, wanted: SeriesFilter, cursor: str | None = None) -> None:
        """Begin behind `cursor`, or with the first point.

        Raises:
            BadCursor: it is none of this class.
        """
        self._wanted = wanted
        self._last_id = 0
        self._open: dict[int, int] = {}
        self._newest: dict[tuple[str, int, str], int] = {}
        if cursor is not None:
            self._last_id, self._open = _read_cursor(cursor)

    @property
    def cursor(self) -> str | None:
        """What brings a new follower to where this one is.

        None when it would be too long for a header, with thousands of series that still grow: who
        follows so many comes back to the last place that could be said.
        """
        parts = [str(self._last_id)]
        parts += [f"{chunk_id}:{seen}" for chunk_id, seen in sorted(self._open.items())]
        packed = zlib.compress(",".join(parts).encode(), 9)
        cursor = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
        return cursor if len(cursor) <= CURSOR_CHARS_MAX else None

    def read(self, session: Session) -> list[Piece]:
        """Return the next points, at most about 2,000; none when there are none for now."""
        rows = session.execute(
            select(
                MetricChunk.id,
                MetricChunk.count,
                MetricChunk.key,
                MetricChunk.rank,
                MetricChunk.attempt_id,
                Attempt.ended_at,
            )
            .join(Attempt, Attempt.id == MetricChunk.attempt_id)
            .where(
                *self._wanted.conditions(),
                or_(MetricChunk.id > self._last_id, MetricChunk.id.in_(list(self._open))),
            )
            .order_by(MetricChunk.id)
            .limit(_PAGE_CHUNKS + len(self._open))
        )
        pieces: list[Piece] = []
        room = _PAGE_POINTS
        for chunk_id, count, key, rank, attempt_id, ended_at in rows:
            seen = self._open.get(chunk_id, 0)
            if room == 0:
                break
            stop = min(count, seen + room)
            if stop > seen:
                points = _read_points(session, chunk_id, seen, stop)
                room -= len(points)
                pieces.append(Piece(key=key, rank=rank, attempt_id=attempt_id, points=points))
            is_final = count >= CHUNK_POINTS or ended_at is not None
            series = (attempt_id, rank, key)
            self._note(chunk_id, series, stop, is_done=is_final and stop == count)
        return pieces

    def _note(
        self, chunk_id: int, series: tuple[str, int, str], seen: int, *, is_done: bool
    ) -> None:
        self._last_id = max(self._last_id, chunk_id)
        # A later chunk of the same series: the one before grows no more.
        before = self._newest.get(series)
        if before is not None and before < chunk_id:
            self._open.pop(before, None)
        self._newest[series] = max(chunk_id, before or 0)
        if is_done:
            self._open.pop(chunk_id, None)
        else:
            self._open[chunk_id] = seen


def _read_points(session: Session, chunk_id: int, start: int, stop: int) -> Points:
    row = session.execute(
        select(MetricChunk.steps, MetricChunk.times, MetricChunk.values).where(
            MetricChunk.id == chunk_id
        )
    ).one()
    return unpack(*_cut(row, start, stop))


def _cut(columns: Sequence[bytes], start: int, stop: int) -> tuple[bytes, bytes, bytes]:
    steps, times, values = (column[8 * start : 8 * stop] for column in columns)
    return steps, times, values


def _read_cursor(cursor: str) -> tuple[int, dict[int, int]]:
    if len(cursor) > CURSOR_CHARS_MAX:
        raise BadCursor
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        text = zlib.decompressobj().decompress(packed, _CURSOR_BYTES_MAX).decode("ascii")
        last, *parts = text.split(",")
        pairs = [part.split(":") for part in parts]
        opened = {_read_int(chunk_id): _read_int(seen) for chunk_id, seen in pairs}
        return _read_int(last), opened
    except (ValueError, zlib.error):
        raise BadCursor from None


def _read_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(text)
    return int(text)
