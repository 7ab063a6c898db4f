"""What the supervisor itself has to report of a run: a file of lines, delivered like the logs.

The number of a line is its sequence at the service, so a report that is sent again is kept once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workers.supervisor.files import find_size, open_regular
from workers.supervisor.link import Link

_LINE_LIMIT_BYTES = 512 * 1024


def add_report(path: Path, kind: str, message: str, data: dict[str, Any]) -> None:
    """Write a report down; it is on its way from then on.

    Raises:
        OSError: the disk is full.
    """
    line = json.dumps({"kind": kind, "message": message, "data": data}).encode() + b"\n"
    handle = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with os.fdopen(handle, "ab", buffering=0) as file:
        file.write(line)


class ReportTail:
    """The file of reports, and how much of it the service has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position_bytes = 0
        self._sequence = 0
        self._first_bytes = 0

    def count_waiting(self) -> int:
        """Return how many bytes may be waiting."""
        return max(0, find_size(self._path) - self._position_bytes)

    def send(self, link: Link) -> bool:
        """Send one report; False if there was no whole one. Raises as `Link.call`."""
        handle = open_regular(self._path, os.O_RDONLY)
        try:
            piece = os.pread(handle, _LINE_LIMIT_BYTES, self._position_bytes)
        finally:
            os.close(handle)
        line, newline, _rest = piece.partition(b"\n")
        if not newline:
            return False
        self._first_bytes = len(line) + 1
        try:
            body = {"sequence": self._sequence, **json.loads(line)}
        except (ValueError, TypeError, RecursionError):
            body = None  # not ours: the job has written here
        if body is not None:
            link.call("POST", "reports", body, timeout_s=30.0)
        self.skip()
        return True

    def skip(self) -> None:
        """Go on after the report that `send` was last about: the service will never take it."""
        self._position_bytes += self._first_bytes
        self._sequence += 1
        self._first_bytes = 0
