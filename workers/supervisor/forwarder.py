"""Carry logs and metrics to the service on a thread of its own: first promptly, then thriftily."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from workers.supervisor.http import Backoff, Refused, Unreachable
from workers.supervisor.link import Link, Stale

# A young attempt is watched closely: short jobs end soon, and somebody looks at the first lines.
_YOUNG_S = 10.0
_LOOK_YOUNG_S, _LOOK_S = 0.03, 0.1
_GATHER_MIN_S, _GATHER_MAX_S = 0.1, 0.8
_FULL_BYTES = 256 * 1024


class Tail(Protocol):
    """A growing file and how much of it the service has."""

    def count_waiting(self) -> int:
        """Return how many bytes may be waiting."""

    def send(self, link: Link) -> bool:
        """Send some of them; False if there was nothing whole to send."""

    def skip(self) -> None:
        """Give up what is waiting."""


class Forwarder:
    """Forwards until everything is delivered after `finish`, or the attempt is disowned."""

    def __init__(self, link: Link, tails: Sequence[Tail]) -> None:
        self._link = link
        self._tails = list(tails)
        self._dirty_since_s: dict[int, float] = {}
        self._started_s = time.monotonic()
        self._condition = threading.Condition()
        self._is_finishing = False
        self._is_abandoned = False
        self.is_delivered = False
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def finish(self) -> None:
        """Say that the files grow no more: deliver the rest without waiting for more."""
        with self._condition:
            self._is_finishing = True
            self._condition.notify()

    def abandon(self) -> None:
        """Stop as soon as possible; what is not delivered stays in the files."""
        with self._condition:
            self._is_abandoned = True
            self._condition.notify()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; True if it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        backoff, failures = Backoff(), 0
        while not self._is_abandoned:
            # Read before sending: what grows after this is seen in the next round.
            is_last_round = self._is_finishing
            pause_s = self._choose_look_s()
            try:
                is_idle = self._forward_due(is_last_round)
                failures = 0
            except Stale:
                return
            except Unreachable as error:
                failures += 1
                is_idle, pause_s = True, backoff.pause_s(failures, error.retry_after_s)
                is_last_round = False
            if is_idle and is_last_round:
                self.is_delivered = True
                return
            if is_idle:
                self._pause(pause_s, is_interruptible=failures == 0)

    def _forward_due(self, is_everything_due: bool) -> bool:
        """Send what is due from each file; True if nothing was."""
        now_s = time.monotonic()
        ripe_s = (now_s - self._started_s) / _YOUNG_S * _GATHER_MAX_S
        gather_s = min(max(ripe_s, _GATHER_MIN_S), _GATHER_MAX_S)
        is_idle = True
        for tail in list(self._tails):
            number = id(tail)
            waiting_bytes = tail.count_waiting()
            if waiting_bytes == 0:
                self._dirty_since_s.pop(number, None)
                continue
            since_s = self._dirty_since_s.setdefault(number, now_s)
            is_due = (
                is_everything_due or waiting_bytes >= _FULL_BYTES or now_s >= since_s + gather_s
            )
            if is_due and self._send(tail):
                is_idle = False
                self._dirty_since_s.pop(number, None)
        return is_idle

    def _send(self, tail: Tail) -> bool:
        try:
            return tail.send(self._link)
        except Refused as error:
            # Nothing will make the service take these bytes; the rest of the job goes on.
            sys.stderr.write(f"not forwarded: {error}\n")
            tail.skip()
            return True
        except OSError as error:
            # The job has put something else in the file's place: nothing more comes from there.
            sys.stderr.write(f"not forwarded, cannot be read: {error}\n")
            self._tails.remove(tail)
            return True

    def _choose_look_s(self) -> float:
        age_s = time.monotonic() - self._started_s
        return _LOOK_YOUNG_S if age_s < _YOUNG_S else _LOOK_S

    def _pause(self, seconds: float, *, is_interruptible: bool) -> None:
        """Wait; the end of the ranks cuts a normal pause short, but not a back-off."""
        with self._condition:
            if self._is_abandoned or (self._is_finishing and is_interruptible):
                return
            self._condition.wait(seconds)
