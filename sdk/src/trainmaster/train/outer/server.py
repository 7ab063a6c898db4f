"""A server's sockets: who calls is let in, heard, and answered. What it means, the hub knows.

One thread for each line reads, one writes; one alone thinks, so that nothing is locked and torch
computes in one place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainmaster.train.outer.frames import Connection, Message, WireError, greet_replica
from trainmaster.train.outer.hub import Hub
from trainmaster.train.outer.space import OutOfStep

if TYPE_CHECKING:
    from trainmaster.train.outer.space import Peer

# For the first replica to call, and then for each other: it may be loading a large model.
START_LIMIT_S = 900.0
# For another replica to come when all are gone and nobody said goodbye. Whoever starts all of them
# anew at the same port must not find the servers of before.
GRACE_S = 1.0
_LOOK_S = 0.5
# Of `accept`: what passes, as the call that was given up or the descriptors that are short. Linux
# passes on errors of the network, too, that have to do with one caller alone.
ACCEPT_AGAIN = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EINTR", "EPROTO", "EPERM", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN"),
        *("EHOSTUNREACH", "ENOPROTOOPT", "EOPNOTSUPP", "ENONET"),
        *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"),
    )
    if hasattr(errno, name)
)
ACCEPT_PAUSE_S = 0.1
# What fits into the socket's own buffer is sent without waking another thread.
SMALL_BYTES = 64 << 10


@dataclass(frozen=True)
class _Event:
    """Something that a line brought: a message, or its end. Without a line: why there is no more.

    Attributes:
        line: None if nobody can be let in any longer.
        message: None at the line's end.
    """

    line: _Line | None
    message: Message | None = None
    error: OSError | None = None


class _Line:
    """One replica's connection."""

    def __init__(self, sock: socket.socket, token: bytes, events: queue.Queue[_Event]) -> None:
        self.peer: Peer | None = None
        self.said_goodbye = False
        self._socket, self._token, self._events = sock, token, events
        self._connection: Connection | None = None
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="outer-read", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; waits for nobody."""
        assert self._connection is not None
        if message.payload_bytes > SMALL_BYTES:
            self._outbox.put(message)
            return
        with contextlib.suppress(WireError):  # the reading thread will say so
            self._connection.send(message)

    def close(self) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.close()

    def _read(self) -> None:
        try:
            greet_replica(self._socket, self._token)
        except (WireError, OSError):
            self._socket.close()
            return
        self._connection = Connection(self._socket)
        threading.Thread(target=self._write, name="outer-write", daemon=True).start()
        try:
            while not self.said_goodbye:
                message = self._connection.receive()
                self.said_goodbye = message.head.get("op") == "bye"
                self._events.put(_Event(self, message))
        except WireError:
            pass
        finally:  # whatever ends it, nobody must wait for this replica any more
            self._outbox.put(None)
            self._events.put(_Event(self))

    def _write(self) -> None:
        assert self._connection is not None
        while (message := self._outbox.get()) is not None:
            with contextlib.suppress(WireError):
                self._connection.send(message)


class Server:
    """Listens until the job is over."""

    def __init__(
        self,
        listener: socket.socket,
        token: bytes,
        server: int,
        num_replicas: int,
        *,
        grace_s: float = GRACE_S,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self._hub = Hub(server, num_replicas, time.monotonic)
        self._listener, self._token, self._grace_s = listener, token, grace_s
        self._events: queue.Queue[_Event] = queue.Queue()
        self._lines: set[_Line] = set()
        self._start_limit_s = start_limit_s
        self._alone_until_s = 0.0
        self._came_at_s = time.monotonic()  # when somebody came or went last
        self._starter = os.getppid()
        self._deaf: OSError | None = None  # why nobody can be let in any longer
        self._is_closed = False

    def run(self) -> None:
        """Serve until all replicas have said goodbye, or nobody has been there for a while."""
        threading.Thread(target=self._listen, name="outer-listen", daemon=True).start()
        self._alone_until_s = time.monotonic() + self._start_limit_s
        while True:
            try:
                event = self._events.get(timeout=self._wait_s() if self._lines else _LOOK_S)
            except queue.Empty:
                if not self._lines and self._is_left():
                    break
                self._complain()
                continue
            if event.line is None:
                self._deaf = event.error
                if not self._lines:
                    break
            elif event.message is None:
                self._end_line(event.line)
                if not self._lines and (event.line.said_goodbye or self._deaf):
                    break
                self._alone_until_s = time.monotonic() + self._grace_s
            else:
                self._hear(event.line, event.message)
            self._complain()
        self._is_closed = True
        self._listener.close()

    def _is_left(self) -> bool:
        """Whether nobody will come any more; who started this may die before its first call."""
        now_s = time.monotonic()
        if self._starter != os.getppid():
            self._starter = os.getppid()
            self._alone_until_s = min(self._alone_until_s, now_s + self._grace_s)
        return now_s >= self._alone_until_s

    def _wait_s(self) -> float | None:
        """Return how long the replicas that are missing are waited for from now on."""
        left_s = self._came_at_s + self._start_limit_s - time.monotonic()
        return left_s if left_s > 0 and self._hub.find_missing() else None

    def _complain(self) -> None:
        """Tell those who wait for replicas that do not come."""
        missing = self._hub.find_missing()
        if missing and self._deaf:
            names = ", ".join(map(str, missing))
            reason = (
                f"the server can let nobody in ({self._deaf}), and replica {names} is missing: "
                "start again from the last checkpoint"
            )
            self._hub.fail_all(RuntimeError(reason))
        elif missing and time.monotonic() - self._came_at_s >= self._start_limit_s:
            names = ", ".join(map(str, missing))
            reason = (
                f"replica {names} has not come within {self._start_limit_s:.0f} s of the others: "
                "its log tells why; start all ranks at about the same time"
            )
            self._hub.fail_all(RuntimeError(reason))

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if self._is_closed:
                    return
                if error.errno not in ACCEPT_AGAIN:
                    self._events.put(_Event(None, error=error))
                    return
                time.sleep(ACCEPT_PAUSE_S)
                continue
            _Line(sock, self._token, self._events)

    def _hear(self, line: _Line, message: Message) -> None:
        if line.peer is None:
            self._introduce(line, message.head)
            return
        if line.said_goodbye or self._hub.peers.get(line.peer.key) is not line.peer:
            return
        try:
            self._hub.receive(line.peer, message)
        except OutOfStep as error:
            line.peer.fail(error)
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
            traceback.print_exc()
            reason = f"the server failed: {type(error).__name__}: {error}"
            self._hub.fail_all(RuntimeError(reason))

    def _introduce(self, line: _Line, head: dict[str, Any]) -> None:
        key = (head["slot"], head["replica"])
        for each in self._lines:
            if each.peer is not None and each.peer.key == key:
                each.close()  # an earlier life of the same replica
        self._lines.add(line)
        self._came_at_s = time.monotonic()
        line.peer = self._hub.connect(*key, head["life"], line.send)

    def _end_line(self, line: _Line) -> None:
        line.close()
        self._lines.discard(line)
        if line.peer is not None:
            self._came_at_s = time.monotonic()
            self._hub.lose(line.peer)
