"""Lines of JSON over a socket, with descriptors."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from workers.supervisor import wire


@pytest.fixture
def ends() -> tuple[wire.Wire, wire.Wire]:
    one, other = socket.socketpair()
    return wire.Wire(one), wire.Wire(other)


def test_messages_and_their_descriptors_arrive_in_order(
    ends: tuple[wire.Wire, wire.Wire], tmp_path: Path
) -> None:
    one, other = ends
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "abc"]
    one.send({"number": 1})
    one.send({"number": 2}, files[:2])
    one.send({"number": 3}, files[2:])
    one.close()

    received = []
    while True:
        message = other.receive()
        if message is None:
            break
        for fd in other.take_fds(message):
            received.append((message["number"], Path(f"/proc/self/fd/{fd}").readlink().name))
            os.close(fd)
    other.close()
    for fd in files:
        os.close(fd)

    assert received == [(2, "a"), (2, "b"), (3, "c")]


@pytest.mark.parametrize("raw", [b"not json\n", b"[1]\n", b"x" * (1024 * 1024 + 1)])
def test_what_is_no_message_is_an_error(raw: bytes, ends: tuple[wire.Wire, wire.Wire]) -> None:
    one, other = ends
    sender = threading.Thread(target=one.socket.sendall, args=(raw,))
    sender.start()

    with pytest.raises(wire.BadMessage):
        other.receive()

    sender.join()
    one.close()
    other.close()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    listener = wire.listen(folder / "s.sock")

    connection = wire.connect(folder / "s.sock", timeout_s=1)

    connection.close()
    listener.close()
    assert (folder / "s.sock").stat().st_mode & 0o777 == 0o600
