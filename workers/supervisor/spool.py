"""Forward a rank's metric spool: the line number in the file is the sequence at the service."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from workers.supervisor.files import find_size, open_regular
from workers.supervisor.http import Refused
from workers.supervisor.link import Link

_BATCH_POINTS = 10_000
# As JSON columns a batch grows by less than half, and a body may have one MiB.
_BATCH_BYTES = 512 * 1024
_KEY_LIMIT_CHARS = 128
_INTEGER_LIMIT = 2**63

Columns = dict[str, dict[str, list[Any]]]


class SpoolTail:
    """One rank's spool, and how many of its lines the service has."""

    def __init__(self, path: Path, rank: int) -> None:
        self._path = path
        self._rank = rank
        self._position_bytes = 0
        self._sequence = 0
        self._lines_max = _BATCH_POINTS

    def count_waiting(self) -> int:
        """Return how many bytes of whole lines may be waiting."""
        return max(0, find_size(self._path) - self._position_bytes)

    def send(self, link: Link) -> bool:
        """Send one batch; False if there was no whole line. Raises as `Link.call`.

        A batch that the service refuses is cut in halves, down to the line it refuses; that line
        then counts and contributes nothing.
        """
        columns, count, size_bytes = self._read_batch()
        if count == 0:
            return False
        body = {
            "stream": str(self._rank),
            "sequence": self._sequence,
            "count": count,
            "columns": columns,
        }
        try:
            answer = link.call("POST", "metrics", body, timeout_s=30.0)
        except Refused as error:
            self._adapt(error, count, size_bytes, link)
            return True
        self._lines_max = min(self._lines_max * 2, _BATCH_POINTS)
        self._advance(int(answer["high_water"]), count, size_bytes)
        return True

    def skip(self) -> None:
        """Give up what is waiting: the service will never take it."""
        self._position_bytes += self.count_waiting()

    def find_last_step(self) -> int | None:
        """Return the step of the newest whole line, or None without one."""
        try:
            with self._open() as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return None
        for line in reversed(lines):
            parsed = _parse_line(line)
            if parsed is not None:
                return parsed[0]
        return None

    def _adapt(self, error: Refused, count: int, size_bytes: int, link: Link) -> None:
        if error.code == "sequence_mismatch":
            self._seek(int(error.problem["high_water"]))
        elif error.status in (400, 413, 422) and count > 1:
            self._lines_max = max(1, count // 2)
        elif error.status in (400, 413, 422):
            body = {
                "stream": str(self._rank), "sequence": self._sequence, "count": 1, "columns": {},
            }  # fmt: skip
            answer = link.call("POST", "metrics", body, timeout_s=30.0)
            self._advance(int(answer["high_water"]), 1, size_bytes)
        else:
            raise error

    def _advance(self, high_water: int, count: int, size_bytes: int) -> None:
        if high_water == self._sequence + count:
            self._sequence = high_water
            self._position_bytes += size_bytes
        else:
            self._seek(high_water)

    def _seek(self, sequence: int) -> None:
        """Move to the start of the line with this number."""
        self._position_bytes = self._sequence = 0
        with self._open() as file:
            while self._sequence < sequence:
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                self._sequence += 1
                self._position_bytes += len(line)

    def _open(self) -> IO[bytes]:
        return os.fdopen(open_regular(self._path, os.O_RDONLY), "rb")

    def _read_batch(self) -> tuple[Columns, int, int]:
        """Return columns, number of lines and bytes of the next batch; whole lines only."""
        with self._open() as file:
            file.seek(self._position_bytes)
            data = file.read(_BATCH_BYTES)
            if b"\n" not in data:
                data += file.readline()
        lines = data.split(b"\n")[:-1]
        columns: Columns = {}
        points = count = size_bytes = 0
        for line in lines[: self._lines_max]:
            added = _add_line(columns, line, room=_BATCH_POINTS - points, is_first=count == 0)
            if added is None:
                break
            points += added
            count += 1
            size_bytes += len(line) + 1
        return columns, count, size_bytes


def _add_line(columns: Columns, line: bytes, *, room: int, is_first: bool) -> int | None:
    """Add a line's points; None if they do not fit, unless it is the first (which is cut)."""
    parsed = _parse_line(line)
    if parsed is None:
        return 0
    step, time_s, values = parsed
    if len(values) > room:
        if not is_first:
            return None
        values = dict(list(values.items())[:room])
    for key, value in values.items():
        column = columns.setdefault(key, {"steps": [], "times": [], "values": []})
        column["steps"].append(step)
        column["times"].append(time_s)
        column["values"].append(value)
    return len(values)


def _parse_line(line: bytes) -> tuple[int, float, dict[str, Any]] | None:
    """Return step, time and values as the protocol has them; None for what is not a spool line."""
    try:
        value = json.loads(line)
        step, time_s, points = value["step"], float(value["time"]), value["values"]
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < _INTEGER_LIMIT:
            return None
        if not math.isfinite(time_s):
            return None
        kept = {key: spell(point) for key, point in points.items() if _is_good(key, point)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return step, time_s, kept


def _is_good(key: Any, point: Any) -> bool:
    if not isinstance(key, str) or not 0 < len(key) <= _KEY_LIMIT_CHARS:
        return False
    return (isinstance(point, (int, float)) and abs(point) < 10**308) or isinstance(point, float)


def spell(point: float) -> float | str:
    """Return the number as the service takes it: NaN and the infinities by their names."""
    number = float(point)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number
