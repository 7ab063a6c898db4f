"""The supervisor's own log: what it says is lost when the disk is full, never an error."""

from __future__ import annotations

import contextlib
import io
import os


class Murmur(io.TextIOBase):
    """A standard error that cannot fail; every write goes straight to the descriptor."""

    def write(self, text: str, /) -> int:
        """Write what the disk takes."""
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)
