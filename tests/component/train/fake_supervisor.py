"""The other end of a rank's socket, played by a test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def take_over(message: Message) -> Message:
    """Do with a checkpoint what a supervisor does: give it its final place."""
    folder = Path(message["path"])
    ready = folder.with_name(f"ready-{message['step']:012d}-{folder.name[-8:]}")
    ready.mkdir()
    folder.rename(ready / "files")
    return {"op": "committed", "request": message["request"], "path": str(ready / "files")}


class FakeSupervisor:
    """Listens in a run's folder, remembers what it is told, answers commits as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[Message] = []
        self.answer: Callable[[Message], Message | None] = take_over
        self.connections: list[socket.socket] = []
        for name in ("spool", "checkpoints"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        handle = os.open(
            folder, os.O_PATH
        )  # an address has 107 bytes, a test's folder may have more
        self._listener.bind(f"/proc/self/fd/{handle}/s.sock")
        os.close(handle)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def describe_run(self, **more: Any) -> Message:
        """Return what a supervisor writes into run.json."""
        return {
            "version": 1,
            "socket": str(self.folder / "s.sock"),
            "spool_dir": str(self.folder / "spool"),
            "checkpoints_dir": str(self.folder / "checkpoints"),
            "config": {},
            "inputs": {},
            "parallel": {},
            "sync": {"mode": "allreduce"},
            "checkpoint": {"every_steps": None, "every_seconds": None},
            "resume": None,
            **more,
        }

    def say(self, message: Message) -> None:
        """Tell every connected rank."""
        for connection in self.connections:
            connection.sendall(json.dumps(message).encode() + b"\n")

    def of_kind(self, kind: str) -> list[Message]:
        """Return what was said to us of one kind."""
        return [message for message in self.heard if message["op"] == kind]

    def ops(self) -> list[str]:
        """Return the kinds of all that was said to us, in order."""
        return [message["op"] for message in self.heard]

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections.clear()

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self.folder / "s.sock").unlink(missing_ok=True)
        self.hang_up()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self.heard.append(message)
                answer = self.answer(message) if message["op"] == "commit" else None
                if answer is not None:
                    connection.sendall(json.dumps(answer).encode() + b"\n")
