"""Lines out of log bytes, the same wherever one begins to read. Pure.

A line ends at a newline. One that never does, such as a progress bar, is cut at multiples of
64 KiB of the log, so that nothing grows without bound; and because cuts depend on offsets of the
log alone, a reader who begins anywhere cuts as everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass

CUT_BYTES = 64 * 1024
LOOKBACK_BYTES = 3 * CUT_BYTES
"""How far before an offset one must begin to know the line that stands there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or a piece of a very long one.

    Attributes:
        offset: where in the log it starts.
        known_at: how much of the log one must have seen to know where it ends.
        data: its bytes, without the newline.
        has_newline: False for a piece, and for a last line without one.
    """

    offset: int
    known_at: int
    data: bytes
    has_newline: bool

    @property
    def text(self) -> str:
        """The bytes as text; what is no UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", errors="replace")


def find_start(offset: int) -> int:
    """Return where to begin so that at `offset` the current line is known."""
    return max(0, offset // CUT_BYTES * CUT_BYTES - (LOOKBACK_BYTES - CUT_BYTES))


class LineSplitter:
    """Takes the bytes of one log in order and gives its lines."""

    def __init__(self, offset: int = 0) -> None:
        """Begin at `offset`, which is 0 or came from `find_start`."""
        self._offset = offset
        self._pending = b""

    def feed(self, data: bytes) -> list[Line]:
        """Take the next bytes and return the lines that they complete."""
        lines = []
        pending = self._pending + data
        base = self._offset
        start = 0
        while True:
            cut = _next_cut(base + start) - base
            newline = pending.find(b"\n", start, cut)
            if newline >= 0:
                end, known, has_newline = newline, newline + 1, True
            elif len(pending) >= cut:
                end = cut - _count_torn(pending[cut - 3 : cut])
                known, has_newline = cut, False
            else:
                break
            lines.append(Line(base + start, base + known, pending[start:end], has_newline))
            start = end + has_newline
        self._offset, self._pending = base + start, pending[start:]
        return lines

    def find_rest(self) -> Line | None:
        """Return the last line if it has no newline; to be asked when nothing more will come."""
        if not self._pending:
            return None
        end = self._offset + len(self._pending)
        return Line(self._offset, end, self._pending, has_newline=False)


def _next_cut(start: int) -> int:
    """Return where a line that starts at `start` is cut: the first multiple that is 64 KiB on."""
    return -(-start // CUT_BYTES) * CUT_BYTES + CUT_BYTES


def _count_torn(tail: bytes) -> int:
    """Return how many bytes at the end begin a character that goes on after it (0 to 3)."""
    for count, byte in enumerate(reversed(tail), start=1):
        if byte & 0xC0 == 0x80:
            continue
        width = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return count if byte >= 0xC0 and width > count else 0
    return 0
