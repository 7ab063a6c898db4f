"""What ranks say on their socket: the worst of it costs them the connection, no more."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.supervisor import wire
from workers.supervisor.channel import RankSocket


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[RankSocket]:
    with selectors.DefaultSelector() as selector:
        served = RankSocket(tmp_path / "s.sock", lambda message, reply: None, selector)
        yield served
        served.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x" * (1024 * 1024 + 64 * 1024), id="a message without an end"),
        pytest.param(b"[" * 100_000 + b"\n", id="deep nesting"),
        pytest.param(b"not json\n", id="what is no JSON"),
    ],
)
def test_a_rank_that_talks_nonsense_loses_its_connection_only(
    data: bytes, ranks: RankSocket, tmp_path: Path
) -> None:
    other = connect(tmp_path / "s.sock")
    bad = connect(tmp_path / "s.sock")
    with contextlib.closing(other), contextlib.closing(bad):
        left = memoryview(data)
        while left and not is_closed(bad.socket):
            with contextlib.suppress(TimeoutError, OSError):
                left = left[bad.socket.send(left) :]
            ranks.drain()
        other.send({"op": "hello"})
        ranks.drain()

        assert is_closed(bad.socket)
        assert other.receive() == {"op": "welcome", "protocol": 1}


@pytest.mark.parametrize("speed", ["NaN", "Infinity", "1" + "0" * 400, '"fast"', "-1"])
def test_a_speed_that_is_none_is_left_out(speed: str, ranks: RankSocket, tmp_path: Path) -> None:
    said = f'{{"op": "progress", "step": 3, "total_steps": 4, "steps_per_second": {speed}}}\n'
    with contextlib.closing(connect(tmp_path / "s.sock")) as rank:
        rank.socket.sendall(said.encode())

        ranks.drain()

    assert ranks.progress == {"step": 3, "total_steps": 4, "steps_per_second": None}


def test_a_rank_that_connects_late_hears_the_wishes_that_are_still_open(
    ranks: RankSocket, tmp_path: Path
) -> None:
    with contextlib.closing(connect(tmp_path / "s.sock")) as first:
        ranks.broadcast({"op": "checkpoint"})
        before = greet(ranks, tmp_path)
        first.send({"op": "commit"})
        ranks.drain()
        ranks.broadcast({"op": "stop", "reason": "Paused"})
        after = greet(ranks, tmp_path)

    assert before == {"op": "checkpoint"}
    assert after == {"op": "stop", "reason": "Paused"}


def greet(ranks: RankSocket, folder: Path) -> wire.Message | None:
    """Connect as another rank and return the first wish that it is told."""
    with contextlib.closing(connect(folder / "s.sock")) as late:
        late.send({"op": "hello"})
        ranks.drain()
        assert late.receive() == {"op": "welcome", "protocol": 1}
        return late.receive()


def connect(path: Path) -> wire.Wire:
    return wire.connect(path, timeout_s=0.05)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
