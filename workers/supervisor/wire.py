"""Lines of JSON over a Unix socket, with file descriptors when they are needed.

Knows nothing of what the messages mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workers.supervisor.files import short_path

_LINE_LIMIT_BYTES = 1024 * 1024
_FDS_LIMIT = 16

Message = dict[str, Any]


class BadMessage(ValueError):
    """The other side sent something that is not a line of JSON with an object in it."""


class Wire:
    """One end of a connection. `pump` when the socket is readable, then take the `messages`."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self.socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; the other side gets its own copies of `fds`, in order.

        Raises:
            OSError: the other side is gone, or does not read.
        """
        data = json.dumps({**message, "fds": len(fds)} if fds else message).encode() + b"\n"
        sent = socket.send_fds(self.socket, [data], fds) if fds else 0
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def pump(self) -> bool:
        """Read once; False when the other side has closed. Blocks if the socket does."""
        try:
            data, fds, _flags, _address = socket.recv_fds(self.socket, 64 * 1024, _FDS_LIMIT)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self._fds.extend(fds)
        for fd in fds:
            os.set_inheritable(fd, False)
        self._buffer += data
        if len(self._buffer) > _LINE_LIMIT_BYTES and b"\n" not in self._buffer:
            raise BadMessage(f"a message is longer than {_LINE_LIMIT_BYTES} bytes")
        return bool(data)

    def messages(self) -> Iterator[Message]:
        """Yield the whole messages that have arrived.

        Raises:
            BadMessage: one of them is not a JSON object.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                return
            self._buffer = rest
            try:
                message = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadMessage("a message is not JSON") from error
            if not isinstance(message, dict):
                raise BadMessage("a message is not an object")
            yield message

    def receive(self) -> Message | None:
        """Wait for one message; None when the other side closes first."""
        while True:
            for message in self.messages():
                return message
            if not self.pump():
                return None

    def take_fds(self, message: Message) -> list[int]:
        """Return the descriptors that came with the message; the caller closes them."""
        return [self._fds.popleft() for _ in range(int(message.get("fds", 0)))]

    def close(self) -> None:
        """Close the connection and the descriptors nobody took."""
        self.socket.close()
        while self._fds:
            os.close(self._fds.popleft())


def connect(folder_and_name: os.PathLike[str], *, timeout_s: float) -> Wire:
    """Connect to the Unix socket at this path, however long the path is.

    Raises:
        OSError: nobody listens there.
    """
    folder, name = os.path.split(os.fspath(folder_and_name))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with short_path(Path(folder)) as short:
            connection.connect(f"{short}/{name}")
    except BaseException:
        connection.close()
        raise
    return Wire(connection)


def listen(folder_and_name: os.PathLike[str], *, backlog: int = 64) -> socket.socket:
    """Listen on a new Unix socket at this path, 0600, replacing what is there."""
    folder, name = os.path.split(os.fspath(folder_and_name))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(Path(folder)) as short:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{short}/{name}")  # noqa: PTH108  the path exists only as text
            before = os.umask(0o177)
            try:
                listener.bind(f"{short}/{name}")
            finally:
                os.umask(before)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener
