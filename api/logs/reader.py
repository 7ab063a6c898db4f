"""Reading a job's logs as lines, in the order in which they were completed. Knows no HTTP.

A position is a chunk and how much of it has been seen, so a reader who comes back with it misses
nothing and gets nothing twice. Last lines without a newline follow when their attempt has ended.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import BadCursor
from api.logs.chunks import (
    Chunk,
    Log,
    LogFilter,
    find_chunk,
    list_chunks,
    load_chunk,
    load_chunks,
    read_raw,
)
from api.logs.lines import Line, LineSplitter, find_start
from models import Attempt, LogChunk, LogStream

_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,10})")
_BATCH_CHUNKS = 256
_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far a reader has come.

    Attributes:
        chunk_id: the chunk that was read last, 0 before the first.
        seen: bytes of it that were seen; past its length, how many last lines of its attempt
            have been given as well.
    """

    chunk_id: int = 0
    seen: int = 0

    def __str__(self) -> str:
        return f"{self.chunk_id}-{self.seen}"


def parse_position(text: str) -> Position:
    """Return the position that an id of a log entry says.

    Raises:
        BadCursor: it says none.
    """
    match = _POSITION.fullmatch(text)
    if match is None:
        raise BadCursor
    return Position(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line, where it came from, and the position after it.

    Attributes:
        is_rest: whether it is the end of a log that does not end in a newline.
    """

    position: Position
    attempt_id: str
    rank: int
    stream: str
    line: Line
    created_at: datetime
    is_rest: bool = False


class LogReader:
    """Goes forward through the lines of a job. Keeps at most the unfinished line of each log."""

    def __init__(self, wanted: LogFilter, position: Position = Position()) -> None:
        self.position = position
        self._wanted = wanted
        self._splitters: dict[Log, LineSplitter] = {}
        self._ready: deque[Entry] = deque()
        self._last: Chunk | None = None
        self._num_flushed = 0
        self._flushed_attempt_id: str | None = None

    def read(self, session: Session, *, limit: int, limit_bytes: int) -> tuple[list[Entry], bool]:
        """Return the next entries, and whether there was more to look at.

        Args:
            limit: most entries to return.
            limit_bytes: about how many bytes of log to look at, whether they match or not.
        """
        found: list[Entry] = []
        looked_bytes = 0
        for entry in self._iter(session):
            looked_bytes += len(entry.line.data) + 64
            if self._wanted.grep is None or self._wanted.grep in entry.line.data:
                found.append(entry)
            if len(found) >= limit or looked_bytes >= limit_bytes:
                return found, True
        return found, False

    def _iter(self, session: Session) -> Iterator[Entry]:
        while True:
            while self._ready:
                entry = self._ready.popleft()
                self.position = entry.position
                yield entry
            if not self._fill(session):
                return

    def _fill(self, session: Session) -> bool:
        """Make some entries ready; False when there is nothing more for now."""
        self._find_last(session)
        # First the attempt, then the chunks: what has ended gets no more of them.
        has_ended = self._has_ended(session)
        chunks = self._list_chunks(session)
        if not chunks:
            return has_ended and self._flush(session)
        data = load_chunks(session, [chunk.id for chunk in chunks])
        for chunk in chunks:
            if self._last is not None and chunk.attempt_id != self._last.attempt_id:
                self._flush(session)
            self._split(session, chunk, data[chunk.id])
        return True

    def _split(self, session: Session, chunk: Chunk, data: bytes) -> None:
        # What has been seen of the chunk on an earlier visit belongs to the line's beginning.
        seen = self.position.seen if chunk.id == self.position.chunk_id and not self._last else 0
        log = (chunk.attempt_id, chunk.rank, chunk.stream)
        splitter = self._splitters.get(log)
        if splitter is None:
            splitter = self._splitters[log] = _open(session, log, chunk.offset)
            splitter.feed(data[:seen])
            data = data[seen:]
        for line in splitter.feed(data):
            position = Position(chunk.id, line.known_at - chunk.offset)
            self._ready.append(_entry(position, log, line, chunk.created_at))
        self._last, self._num_flushed = chunk, 0
        if not self._ready:
            self.position = Position(chunk.id, chunk.length)

    def _flush(self, session: Session) -> bool:
        """Make the last lines of the ended attempt ready; False when they have been."""
        last = self._last
        if last is None or self._flushed_attempt_id == last.attempt_id:
            return False
        rests = []
        for log, length in self._list_logs(session, last.attempt_id):
            splitter = self._splitters.pop(log, None) or _open(session, log, length)
            rest = splitter.find_rest()
            if rest is not None:
                rests.append((log, rest))
        for index, (log, rest) in enumerate(rests, start=1):
            if index > self._num_flushed:
                position = Position(last.id, last.length + index)
                entry = _entry(position, log, rest, last.created_at)
                self._ready.append(dataclasses.replace(entry, is_rest=True))
        is_news = self._num_flushed < len(rests)
        self._flushed_attempt_id = last.attempt_id
        return is_news

    def _find_last(self, session: Session) -> None:
        """Know the chunk of a position that was brought back, once it has been read to its end."""
        if self._last is not None or self.position.chunk_id == 0:
            return
        wanted = [*self._wanted.conditions(), LogChunk.id == self.position.chunk_id]
        chunk = find_chunk(session, wanted)
        if chunk is not None and self.position.seen >= chunk.length:
            self._last, self._num_flushed = chunk, self.position.seen - chunk.length

    def _has_ended(self, session: Session) -> bool:
        if self._last is None:
            return False
        attempt = select(Attempt.ended_at).where(Attempt.id == self._last.attempt_id)
        return session.scalar(attempt) is not None

    def _list_chunks(self, session: Session) -> list[Chunk]:
        first = self._last.id + 1 if self._last is not None else self.position.chunk_id
        wanted = [*self._wanted.conditions(), LogChunk.id >= first]
        chunks, num_bytes = [], 0
        for chunk in list_chunks(session, wanted, limit=_BATCH_CHUNKS):
            chunks.append(chunk)
            num_bytes += chunk.length
            if num_bytes >= _BATCH_BYTES:
                break
        return chunks

    def _list_logs(self, session: Session, attempt_id: str) -> list[tuple[Log, int]]:
        logs = select(LogStream).where(LogStream.attempt_id == attempt_id)
        if self._wanted.rank is not None:
            logs = logs.where(LogStream.rank == self._wanted.rank)
        if self._wanted.stream is not None:
            logs = logs.where(LogStream.stream == self._wanted.stream)
        found = session.scalars(logs.order_by(LogStream.rank, LogStream.stream))
        return [((log.attempt_id, log.rank, log.stream), log.length) for log in found]


def find_tail(session: Session, wanted: LogFilter, num_lines: int, *, limit_bytes: int) -> Position:
    """Return a position with at least `num_lines` wanted lines after it, if there are so many.

    Looks backwards through at most about `limit_bytes` of log.
    """
    position = Position()
    counted = looked_bytes = 0
    before: int | None = None
    while counted <= num_lines and looked_bytes < limit_bytes:
        conditions = wanted.conditions()
        if before is not None:
            conditions.append(LogChunk.id < before)
        chunks = list_chunks(session, conditions, limit=16, is_descending=True)
        if not chunks:
            return Position()
        for chunk in chunks:
            data = load_chunk(session, chunk.id)
            counted += _count_lines(data, wanted.grep)
            looked_bytes += chunk.length
            before, position = chunk.id, Position(chunk.id, 0)
            if counted > num_lines or looked_bytes >= limit_bytes:
                break
    return position


def _open(session: Session, log: Log, offset: int) -> LineSplitter:
    """Return a splitter that has seen the log up to `offset`."""
    start = find_start(offset)
    splitter = LineSplitter(start)
    splitter.feed(read_raw(session, log, start, offset))
    return splitter


def _entry(position: Position, log: Log, line: Line, created_at: datetime) -> Entry:
    attempt_id, rank, stream = log
    return Entry(position, attempt_id, rank, stream, line, created_at)


def _count_lines(data: bytes, grep: bytes | None) -> int:
    if grep is None:
        return data.count(b"\n")
    return sum(grep in line for line in data.split(b"\n")) if grep in data else 0
