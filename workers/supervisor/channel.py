"""The socket on which ranks talk to their supervisor. Knows no HTTP."""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.supervisor import wire
from workers.supervisor.wire import BadMessage, Message, Wire

PROTOCOL = 1
_SPEED_LIMIT = 1e12

Commit = Callable[[Message, Callable[[Message], None]], None]


class _Connection:
    """One rank's connection. Replies may come from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        # A rank that does not read loses its connection, not the supervisor's time.
        connection.settimeout(1.0)
        self.wire = Wire(connection)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.wire.send(message)


class RankSocket:
    """Serves the ranks' connections from the main thread's selector."""

    def __init__(self, path: Path, commit: Commit, selector: selectors.BaseSelector) -> None:
        """Listen at `path`; `commit(message, reply)` takes a rank's checkpoint."""
        self.progress: dict[str, Any] | None = None
        self._commit = commit
        self._selector = selector
        self._listener = wire.listen(path)
        self._listener.setblocking(False)
        self._connections: set[_Connection] = set()
        self._greeting: dict[Any, Message] = {}
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def broadcast(self, message: Message) -> None:
        """Send to every connected rank, and to those that connect later.

        Not a wish for a checkpoint that has been granted since: a rank that is started again would
        have everybody save once more.
        """
        self._greeting[message["op"]] = message
        for connection in list(self._connections):
            connection.send(message)

    def drain(self) -> None:
        """Read what the ranks said before they ended."""
        self._accept()
        for connection in list(self._connections):
            connection.wire.socket.settimeout(0.0)
            while connection in self._connections and self._has_more(connection):
                self._read(connection)

    def close(self) -> None:
        """Close everything."""
        self._selector.unregister(self._listener)
        self._listener.close()
        for connection in list(self._connections):
            self._drop(connection)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            connection = _Connection(accepted)
            self._connections.add(connection)
            self._selector.register(
                accepted, selectors.EVENT_READ, lambda connection=connection: self._read(connection)
            )

    def _has_more(self, connection: _Connection) -> bool:
        try:
            return bool(connection.wire.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _read(self, connection: _Connection) -> None:
        try:
            is_open = connection.wire.pump()
            for message in connection.wire.messages():
                self._handle(connection, message)
        except BadMessage as error:
            sys.stderr.write(f"a rank's connection is closed: {error}\n")
            is_open = False
        if not is_open:
            self._drop(connection)

    def _handle(self, connection: _Connection, message: Message) -> None:
        operation = message.get("op")
        if operation == "hello":
            connection.send({"op": "welcome", "protocol": PROTOCOL})
            for said in self._greeting.values():
                connection.send(said)
        elif operation == "commit":
            self._greeting.pop("checkpoint", None)
            self._commit(message, connection.send)
        elif operation == "progress":
            self.progress = _read_progress(message)

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.wire.socket)
        connection.wire.close()


def _read_progress(message: Message) -> dict[str, Any]:
    step, total = message.get("step"), message.get("total_steps")
    speed = message.get("steps_per_second")
    if not isinstance(speed, (int, float)) or not 0 <= speed < _SPEED_LIMIT:
        speed = None
    return {
        "step": step if isinstance(step, int) and 0 <= step < 2**63 else 0,
        "total_steps": total if isinstance(total, int) and 0 < total < 2**63 else None,
        "steps_per_second": None if speed is None else float(speed),
    }
