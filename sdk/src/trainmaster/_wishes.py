"""What this rank has been asked to do: stop, or save. Knows neither sockets nor files."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

TERMINATED = "Terminated"


class Wishes:
    """Two flags that others raise and the training loop reads; reading costs nothing."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self.is_checkpoint_wanted = False

    def stop(self, reason: str) -> None:
        """Ask the rank to stop; a reason from the supervisor replaces that of a bare signal."""
        if self.stop_reason in (None, TERMINATED):
            self.stop_reason = reason


def watch_sigterm(wishes: Wishes, *, only_once: bool) -> None:
    """Turn SIGTERM into a wish to stop, where nobody else has claimed the signal.

    Args:
        wishes: told of the signal.
        only_once: a second SIGTERM ends the process as it would without us.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def on_sigterm(_number: int, _frame: Any) -> None:
        wishes.stop(TERMINATED)
        if only_once:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def forget() -> None:
        # A forked child (a data loader's worker, a pool) must die when its parent says so.
        if signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, on_sigterm)
    os.register_at_fork(after_in_child=forget)
