"""What wakes the supervisor's main thread: other threads, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable


class Bell:
    """A pipe to select on. SIGUSR1 asks for a renewal, SIGTERM and SIGINT for the end.

    Set `renew` to what renews; it is called in the signal's handler, on the main thread, whatever
    that thread is waiting for.
    """

    def __init__(self) -> None:
        self.is_end_asked = False
        self.renew: Callable[[], None] = lambda: None
        self.readable, self._writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGUSR1, self._ask_renewal)
        signal.signal(signal.SIGTERM, self._ask_end)
        signal.signal(signal.SIGINT, self._ask_end)
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)

    def ring(self) -> None:
        """Wake the main thread, from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is rung already
            os.write(self._writable, b"!")

    def clear(self) -> None:
        """Take note of having woken."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.readable, 4096)

    def _ask_renewal(self, _number: int, _frame: object) -> None:
        self.renew()

    def _ask_end(self, _number: int, _frame: object) -> None:
        self.is_end_asked = True
