"""A reader on a job's logs, and its lines as documents. Knows no request."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.attempts.naming import map_attempt_numbers
from api.logs.chunks import LogFilter
from api.logs.reader import Entry, LogReader, Position, find_tail
from api.logs.schemas import LogLine, LogPage
from models import Database, Job

LOOK_BYTES_MAX = 8 * 1024 * 1024
"""What one request looks through, whatever it finds there."""

STREAM_LINES = 500
_TAIL_LINES = 10_000


class OpenedLog:
    """A reader on a job's logs, with what it takes to show its lines."""

    def __init__(
        self, database: Database, wanted: LogFilter, start: Position, numbers: dict[str, int]
    ) -> None:
        self.reader = LogReader(wanted, start)
        self._database, self._wanted, self._numbers = database, wanted, numbers

    def read_page(self, limit: int) -> LogPage:
        """Return the next page of at most `limit` lines."""
        with self._database.read() as session:
            entries, has_more = self.reader.read(
                session, limit=limit + 1, limit_bytes=LOOK_BYTES_MAX
            )
        position = self.reader.position
        if len(entries) > limit:
            entries = entries[:limit]
            position = entries[-1].position
        return self.render_page(entries, position, has_more=has_more)

    def read_tail(self, num_lines: int) -> list[Entry]:
        """Return the last lines, and leave the reader at the end."""
        with self._database.read() as session:
            start = find_tail(session, self._wanted, num_lines, limit_bytes=LOOK_BYTES_MAX)
            self.reader = LogReader(self._wanted, start)
            last: deque[Entry] = deque(maxlen=num_lines)
            has_more = True
            while has_more:
                entries, has_more = self.reader.read(
                    session, limit=_TAIL_LINES, limit_bytes=LOOK_BYTES_MAX
                )
                last.extend(entries)
        return list(last)

    def read_some(self, limit: int) -> tuple[list[Entry], bool]:
        """Return the next lines, and whether there was more to look at."""
        with self._database.read() as session:
            return self.reader.read(session, limit=limit, limit_bytes=LOOK_BYTES_MAX)

    def read_stream(self) -> tuple[list[Entry], str | None]:
        """Return the next lines, and the state of the job once none will ever follow."""
        with self._database.read() as session:
            # The job first: a job that is over gets no more lines, so what follows is all.
            job = session.get(Job, self._wanted.job_id)
            entries, has_more = self.reader.read(
                session, limit=STREAM_LINES, limit_bytes=LOOK_BYTES_MAX
            )
            self._learn(session, entries)
        if has_more or (job is not None and not job.is_terminal):
            return entries, None
        return entries, "deleted" if job is None else job.state.value

    def render_page(
        self, entries: Sequence[Entry], position: Position, *, has_more: bool
    ) -> LogPage:
        """Return the page of these lines, after which the reader is at `position`."""
        return LogPage(
            data=[self._line(entry) for entry in entries],
            has_more=has_more,
            next_cursor=None if position == Position() else str(position),
        )

    def render_line(self, entry: Entry) -> str:
        """Return the line as JSON."""
        return self._line(entry).model_dump_json()

    def render_ndjson(self, entries: Sequence[Entry]) -> bytes:
        """Return the lines as JSON, each on a line of its own."""
        return b"".join(self.render_line(entry).encode() + b"\n" for entry in entries)

    def _learn(self, session: Session, entries: list[Entry]) -> None:
        if any(entry.attempt_id not in self._numbers for entry in entries):
            self._numbers.update(map_attempt_numbers(session, self._wanted.job_id))

    def _line(self, entry: Entry) -> LogLine:
        return LogLine(
            id=str(entry.position),
            attempt_id=entry.attempt_id,
            attempt=self._numbers.get(entry.attempt_id, 0),
            rank=entry.rank,
            stream="stderr" if entry.stream == "stderr" else "stdout",
            offset=entry.line.offset,
            text=entry.line.text,
            created_at=entry.created_at,
        )


def render_text(entries: Sequence[Entry]) -> bytes:
    """Return the bytes as they were printed, control characters and all.

    A log that ends without a newline gets one, so that the next log starts on its own line.
    """
    return b"".join(
        entry.line.data + b"\n" if entry.line.has_newline or entry.is_rest else entry.line.data
        for entry in entries
    )
