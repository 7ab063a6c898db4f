"""Keep the attempt's lease, on a thread that does nothing else, and know when it must be fenced."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workers.supervisor import linux
from workers.supervisor.http import Backoff, Refused, Unreachable
from workers.supervisor.link import Link, Stale

_CALL_TIMEOUT_S = 10.0
# A first renewal waits this long for something to say, so that a short job needs only one.
_FIRST_WAIT_S = 1.0
_PROGRESS_PAUSE_S = 1.0


@dataclass
class Report:
    """What a renewal says. Changed by the main thread only, through `Lease.say`."""

    phase: str = "staging"
    message: str | None = None
    progress: dict[str, Any] | None = None
    ranks: list[dict[str, Any]] = field(default_factory=list)
    rendezvous: dict[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """What the service wants of the attempt."""

    action: str = "run"
    reason: str | None = None
    grace_s: float = 30.0
    serial: int = 0


class Lease:
    """Renews until told to end. Its times are those of CLOCK_BOOTTIME."""

    def __init__(
        self, link: Link, *, started_s: float, heartbeat_s: float, fence_s: float,
        on_news: Callable[[], None],
    ) -> None:  # fmt: skip
        """`on_news` is called on the lease's thread after each good renewal.

        `started_s` is when the call began that last proved the attempt to be ours.
        """
        self.wanted = Wanted()
        self.rendezvous: dict[str, Any] | None = None
        self._link = link
        self._heartbeat_s = heartbeat_s
        self._fence_s = fence_s
        self._on_news = on_news
        self._renewed_s = started_s
        self._started_s = started_s
        self._report = Report()
        self._said_progress: dict[str, Any] | None = None
        self._condition = threading.Condition(threading.RLock())
        self._due_s = started_s + _FIRST_WAIT_S
        self._is_ending = False
        self._is_calling = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def fence_at_s(self) -> float:
        """When everything must be dead unless a renewal comes first."""
        return self._renewed_s + self._fence_s

    @property
    def renewed_s(self) -> float:
        """When the last good renewal began."""
        return self._renewed_s

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def say(self, *, now: bool = False, **changes: Any) -> None:
        """Change the report; `now` sends it at once, else it goes with the next renewal."""
        with self._condition:
            for name, value in changes.items():
                setattr(self._report, name, value)
            if now:
                self._due_s = 0.0
            elif "progress" in changes:
                self._due_s = min(self._due_s, self._renewed_s + self._progress_pause_s())
            self._condition.notify_all()

    def note(self, **changes: Any) -> None:
        """Change the report for the next renewal, whenever that is."""
        with self._condition:
            for name, value in changes.items():
                setattr(self._report, name, value)

    def renew_now(self) -> None:
        """Renew at once; may be called in a signal handler (the lock is a re-entrant one)."""
        self.say(now=True)

    def say_progress(self, progress: dict[str, Any]) -> None:
        """Take note of progress; it is told soon if it is news."""
        if progress != self._report.progress:
            self.say(progress=progress)

    def has_unsaid_progress(self) -> bool:
        """Whether progress has been made that no renewal has told."""
        return self._report.progress is not None and self._report.progress != self._said_progress

    def flush(self, *, timeout_s: float) -> None:
        """Wait, for at most `timeout_s`, until what was to be said at once has been said."""
        with self._condition:
            self._condition.wait_for(self._is_quiet, timeout_s)

    def end(self) -> None:
        """Renew no more; a renewal under way is not waited for."""
        with self._condition:
            self._is_ending = True
            self._condition.notify_all()

    def _progress_pause_s(self) -> float:
        """Tell progress every second of a young attempt, and more rarely as it grows old."""
        age_s = linux.boottime_s() - self._started_s
        return min(self._heartbeat_s, max(_PROGRESS_PAUSE_S, age_s / 60))

    def _run(self) -> None:
        backoff = Backoff(first_s=0.2, max_s=min(self._heartbeat_s, 2.0))
        failures = 0
        while self._wait_until_due():
            started_s = linux.boottime_s()
            next_s = started_s + self._heartbeat_s
            try:
                self._renew(started_s)
                failures = 0
                self._on_news()
            except Stale:
                return
            except (Unreachable, Refused, KeyError, TypeError, ValueError) as error:
                # An answer that cannot be read renews nothing, no more than no answer.
                failures += 1
                if failures == 1 or not isinstance(error, Unreachable):
                    sys.stderr.write(f"lease not renewed: {error!r}\n")
                # However long the service asks to be left alone, the fence does not wait.
                pause_s = min(
                    backoff.pause_s(failures, getattr(error, "retry_after_s", None)),
                    self._heartbeat_s,
                )
                next_s = linux.boottime_s() + pause_s
            finally:
                self._note_call_ended(next_s)

    def _wait_until_due(self) -> bool:
        with self._condition:
            while not self._is_ending:
                left_s = self._due_s - linux.boottime_s()
                if left_s <= 0:
                    # What is said during the call asks for another by moving this again.
                    self._due_s = float("inf")
                    self._is_calling = True
                    return True
                self._condition.wait(min(left_s, threading.TIMEOUT_MAX))
        return False

    def _note_call_ended(self, next_s: float) -> None:
        with self._condition:
            self._is_calling = False
            self._due_s = min(self._due_s, next_s)
            self._condition.notify_all()

    def _is_quiet(self) -> bool:
        is_due = self._due_s <= linux.boottime_s()
        return self._is_ending or not (self._is_calling or is_due) or self._link.is_stale.is_set()

    def _renew(self, started_s: float) -> None:
        with self._condition:
            body = dict(vars(self._report))
        answer = self._link.call("POST", "lease", body, timeout_s=_CALL_TIMEOUT_S)
        wanted = answer["wanted"]
        self.wanted = Wanted(
            action=wanted["action"],
            reason=wanted.get("reason"),
            grace_s=float(wanted.get("grace_seconds") or 0),
            serial=int(wanted.get("serial") or 0),
        )
        self.rendezvous = answer.get("rendezvous")
        self._said_progress = body["progress"]
        self._renewed_s = started_s
        if answer.get("token"):
            self._link.renew_token(answer["token"])
