"""The rank's end of the conversation with its supervisor: newline JSON over a Unix socket.

Opened by the first question, never by importing. A rank trains on without it: only a commit
needs an answer, and waits for one with a deadline. A forked child never speaks on its parent's
connection. Knows nothing of metrics, which go through files, nor of any framework.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import struct
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster._job_errors import CheckpointNotCommitted, RunError
from trainmaster._spool import spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainmaster._wishes import Wishes

PROTOCOL = 1
SEND_TIMEOUT_S = 10
RECONNECT_S = 5.0
PROGRESS_INTERVAL_S = 0.25
SPEED_WINDOW_S = 5.0
_SEND_TIMEOUT = struct.pack("ll", SEND_TIMEOUT_S, 0)  # a struct timeval


class _Speed:
    """Steps per second, over the last few seconds."""

    def __init__(self) -> None:
        self._step, self._at_s = 0, 0.0
        self._average: float | None = None

    def measure(self, step: int, now_s: float) -> float | None:
        """Return the speed up to now; None at the first call, or if it goes backwards."""
        seconds, steps = now_s - self._at_s, step - self._step
        is_first = self._at_s == 0.0
        self._step, self._at_s = step, now_s
        if is_first or seconds <= 0 or steps < 0:
            return self._average
        weight = 1 - math.exp(-seconds / SPEED_WINDOW_S)
        speed = steps / seconds
        old = speed if self._average is None else self._average
        self._average = old + weight * (speed - old)
        return self._average


class Link:
    """One connection of one rank; safe to use from several threads of one process."""

    def __init__(self, path: str, rank: int, wishes: Wishes) -> None:
        self._path = path
        self._rank = rank
        self._wishes = wishes
        self._is_forked = False
        self._next_progress_s = 0.0
        self._speed = _Speed()
        self._next_attempt_s = 0.0
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._answers: dict[str, dict[str, Any]] = {}
        self._socket: socket.socket | None = None
        os.register_at_fork(after_in_child=self._abandon)

    def open(self) -> bool:
        """Connect if there is no connection; return whether there is one now.

        After a failure, attempts are `RECONNECT_S` apart, so this may be asked at every step.
        """
        if not self._is_open() and not self._is_forked and time.monotonic() >= self._next_attempt_s:
            with self._lock:
                if not self._is_open():
                    self._connect()
        return self._is_open()

    def progress(self, step: int, total_steps: int | None) -> None:
        """Say how far the training is; at most four times a second, dropped rather than waited."""
        now = time.monotonic()
        is_end = step == total_steps  # said in any case: nothing follows that would correct it
        if (now < self._next_progress_s and not is_end) or not self.open():
            return
        self._next_progress_s = now + PROGRESS_INTERVAL_S
        message = {
            "op": "progress",
            "step": step,
            "total_steps": total_steps,
            "steps_per_second": self._speed.measure(step, now),
        }
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.send(_encode(message), socket.MSG_DONTWAIT)

    def commit(
        self,
        folder: Path,
        step: int,
        metrics: Mapping[str, float],
        *,
        answer_s: float,
        connect_s: float,
    ) -> Path:
        """Hand a finished checkpoint folder over and wait until it is safe on disk.

        Args:
            folder: below the run's checkpoints folder.
            step: the step it was taken at.
            metrics: numbers by name.
            answer_s: how long to wait for the answer in all.
            connect_s: how long to go without a connection.

        Returns:
            where the files lie now.

        Raises:
            CheckpointNotCommitted: refused, or nobody answered in time.
            RunError: called in a forked child.
        """
        if self._is_forked:
            raise RunError(
                "commit_checkpoint was called in a forked child of the rank: "
                "call it in the process that the supervisor started"
            )
        request = uuid.uuid4().hex
        message = {
            "op": "commit",
            "request": request,
            "path": str(folder),
            "step": step,
            "metrics": spell(metrics),
        }
        answer = self._ask(message, request, answer_s=answer_s, connect_s=connect_s)
        if answer["op"] == "refused":
            raise CheckpointNotCommitted(
                f"the supervisor refused the checkpoint of step {step}: {answer.get('message')}"
            )
        return Path(answer["path"])

    def _ask(
        self, message: dict[str, Any], request: str, *, answer_s: float, connect_s: float
    ) -> dict[str, Any]:
        start = time.monotonic()
        connected_at = start
        sent_on: socket.socket | None = None
        with self._arrived:
            while (answer := self._answers.pop(request, None)) is None:
                now = time.monotonic()
                if self._socket is None:
                    self._next_attempt_s = 0.0
                if self.open():
                    connected_at = now
                    if sent_on is not self._socket:
                        sent_on = self._send(message)
                    self._arrived.wait(min(1.0, max(0.0, start + answer_s - now)))
                else:
                    self._arrived.wait(0.1)
                if now - connected_at > connect_s or now - start > answer_s:
                    raise CheckpointNotCommitted(
                        f"the supervisor has not taken the checkpoint of step {message['step']} "
                        f"within {now - start:.0f} s; its files are still in {message['path']}"
                    )
        return answer

    def _send(self, message: Mapping[str, Any]) -> socket.socket | None:
        with self._lock:
            connection = self._socket
            if connection is None:
                return None
            try:
                connection.sendall(_encode(message))
            except OSError:
                self._drop(connection)
                return None
            return connection

    def _is_open(self) -> bool:
        return self._socket is not None

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Bounds connecting and sending; the reader still waits for its bytes with no limit.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
            with _short_path(self._path) as path:
                connection.connect(path)
            hello = {"op": "hello", "rank": self._rank, "pid": os.getpid(), "protocol": PROTOCOL}
            connection.sendall(_encode(hello))
        except OSError:
            connection.close()
            self._next_attempt_s = time.monotonic() + RECONNECT_S
            return
        self._socket = connection
        threading.Thread(
            target=self._listen, args=(connection,), name="trainmaster-link", daemon=True
        ).start()

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as lines:
            for line in lines:
                self._receive(json.loads(line))
        self._drop(connection)
        with self._arrived:
            self._arrived.notify_all()

    def _receive(self, message: dict[str, Any]) -> None:
        op = message.get("op")
        if op == "stop":
            self._wishes.stop(str(message.get("reason") or "StopRequested"))
        elif op == "checkpoint":
            self._wishes.is_checkpoint_wanted = True
        elif op in ("committed", "refused"):
            with self._arrived:
                self._answers[str(message.get("request"))] = message
                self._arrived.notify_all()

    def _drop(self, connection: socket.socket) -> None:
        if self._socket is connection:
            self._socket = None
            self._next_attempt_s = time.monotonic() + RECONNECT_S
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _abandon(self) -> None:
        """Forget the parent's connection, in a forked child: close our copy, take new locks."""
        self._is_forked = True
        self._lock, self._arrived = threading.Lock(), threading.Condition()
        if self._socket is not None:
            os.close(self._socket.detach())
            self._socket = None


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


@contextlib.contextmanager
def _short_path(path: str) -> Iterator[str]:
    """Name the socket by its open folder: an address holds 107 bytes, a data folder may not fit."""
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
