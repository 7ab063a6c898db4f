"""Let a supervisor see where this process stands, even while it is stuck inside a C call."""

from __future__ import annotations

import faulthandler
import os


def allow_stacks(path: str, signal_number: int) -> None:
    """From now on, write the Python stacks of all threads into a file at each such signal.

    The handler is a C one and needs no lock of the interpreter's. A second call replaces the first.

    Raises:
        OSError: the file cannot be made.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)  # stays open for the life of the process
    faulthandler.register(signal_number, file=handle, all_threads=True)
