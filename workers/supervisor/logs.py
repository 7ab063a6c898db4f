"""Forward a rank's output file: the offset in the file is the offset at the service."""

from __future__ import annotations

import os
from pathlib import Path

from workers.supervisor.files import find_size, open_regular
from workers.supervisor.http import Refused
from workers.supervisor.link import Link

_CHUNK_BYTES = 1024 * 1024


class LogTail:
    """One file of a rank's output, and how much of it the service has."""

    def __init__(self, path: Path, rank: int, stream: str) -> None:
        self._path = path
        self._route = f"logs/{rank}/{stream}"
        self._sent_bytes = 0

    def count_waiting(self) -> int:
        """Return how many bytes the service does not have yet."""
        return max(0, find_size(self._path) - self._sent_bytes)

    def send(self, link: Link) -> bool:
        """Send one piece; False if there was none. Raises as `Link.call`.

        A piece whose answer was lost is sent again at the same offset; the service then names
        its true length, and sending goes on from there.
        """
        handle = open_regular(self._path, os.O_RDONLY)
        try:
            piece = os.pread(handle, _CHUNK_BYTES, self._sent_bytes)
        finally:
            os.close(handle)
        if not piece:
            return False
        try:
            answer = link.call(
                "PUT",
                f"{self._route}?offset={self._sent_bytes}",
                body=piece,
                size_bytes=len(piece),
                timeout_s=30.0,
            )
            self._sent_bytes = int(answer["length"])
        except Refused as error:
            if error.code != "offset_mismatch":
                raise
            self._sent_bytes = int(error.problem["length"])
        return True

    def skip(self) -> None:
        """Give up what is waiting: the service will never take it."""
        self._sent_bytes += self.count_waiting()
