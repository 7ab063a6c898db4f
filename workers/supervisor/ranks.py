"""The supervisor's side of a nursery: start ranks, signal them, learn how they ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.supervisor import processes, wire
from workers.supervisor.cgroup import Cgroup
from workers.supervisor.exits import RankEnd
from workers.supervisor.wire import Message, Wire

_READY_LIMIT_S = 60.0
_KILL_LIMIT_S = 30.0


class NurseryFailed(Exception):
    """No nursery could be had from there."""


class Ranks:
    """The ranks of one attempt on this node, alive and dead."""

    def __init__(self, nursery: Wire, cgroup: Cgroup | None, marker: bytes) -> None:
        """Use `open_nursery`. `marker` is what every rank has in its environment."""
        self.wire = nursery
        self.nursery_pid: int = 0
        self.has_store = False
        self.is_nursery_gone = False
        self.pids: dict[int, int] = {}
        self.ends: dict[int, RankEnd] = {}
        self._cgroup, self._marker = cgroup, marker
        self._is_signalled = False

    def start(self, order: Mapping[str, Any], fds: Sequence[int]) -> None:
        """Ask the nursery to start one rank."""
        with self._tolerate_loss():
            self.wire.send({"op": "start", **order}, fds)

    def send_signal(self, number: int) -> None:
        """Send a signal to every rank that lives."""
        self._is_signalled = True
        with self._tolerate_loss():
            self.wire.send({"op": "signal", "rank": None, "signal": number})

    def ask_rank(self, rank: int, number: int) -> None:
        """Send one rank a signal that it answers without ending."""
        with self._tolerate_loss():
            self.wire.send({"op": "signal", "rank": rank, "signal": number})

    def forget(self, rank: int) -> None:
        """Forget a rank that has ended, so that it may be started again."""
        self.ends.pop(rank, None)
        self.pids.pop(rank, None)

    def move_fence(self, at_s: float) -> None:
        """Tell the nursery until when it may believe that this supervisor is well."""
        with self._tolerate_loss():
            self.wire.send({"op": "fence", "at": at_s})

    def read(self) -> None:
        """Take in what the nursery says; call when its socket is readable."""
        if not self.wire.pump():
            self.is_nursery_gone = True
        for message in self.wire.messages():
            if message["op"] == "started":
                self.pids[int(message["rank"])] = int(message["pid"])
            elif message["op"] == "exited":
                self._note_end(message)

    def end_everything(self) -> bool:
        """Kill all that is left of the attempt here; True when nothing is."""
        deadline_s = time.monotonic() + _KILL_LIMIT_S
        if self._cgroup is not None:
            is_empty = self._cgroup.kill_until_empty(deadline_s=deadline_s)
            self.wire.close()  # the nursery, which is not in the cgroup, leaves
            return is_empty
        roots = {self.nursery_pid} if self.nursery_pid else set()
        left = processes.kill_family(roots, self._marker, deadline_s=deadline_s)
        self.wire.close()
        return not left

    def _note_end(self, message: Message) -> None:
        rank = int(message["rank"])
        self.ends[rank] = RankEnd(
            rank=rank,
            code=message["code"],
            signal=message["signal"],
            by_us=self._is_signalled,
            order=len(self.ends),
        )

    @contextlib.contextmanager
    def _tolerate_loss(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.is_nursery_gone = True


def open_nursery(
    server: Path | None, library: Path, *, run_file: Path, cgroup: Cgroup | None,
    fence_at_s: float,
) -> Ranks:  # fmt: skip
    """Get a nursery from the fork server at `server`, or start one of our own.

    Raises:
        NurseryFailed: there is nobody at `server`, or it cannot serve.
    """
    connection = _connect(server) if server is not None else _spawn(library)
    marker = f"TRAINMASTER_RUN={run_file}"
    ranks = Ranks(connection, cgroup, os.fsencode(marker))
    try:
        connection.socket.settimeout(_READY_LIMIT_S)
        connection.send(
            {
                "op": "nursery",
                "marker": marker,
                "cgroup": str(cgroup.path) if cgroup else None,
                "fence_at": fence_at_s,
            }
        )
        ready = connection.receive()
    except OSError as error:
        connection.close()
        raise NurseryFailed(f"{server}: {error}") from error
    if ready is None:
        connection.close()
        raise NurseryFailed(f"{server} closed the connection")
    ranks.nursery_pid, ranks.has_store = int(ready["pid"]), bool(ready["has_store"])
    connection.socket.settimeout(5.0)
    return ranks


def kill_leftovers(cgroup: Cgroup | None, run_file: Path) -> bool:
    """Kill what a dead supervisor may have left; True when nothing is."""
    deadline_s = time.monotonic() + _KILL_LIMIT_S
    marker = os.fsencode(f"TRAINMASTER_RUN={run_file}")
    left = processes.kill_family((), marker, deadline_s=deadline_s)
    is_empty = cgroup is None or cgroup.kill_until_empty(deadline_s=deadline_s)
    return is_empty and not left


def _connect(server: Path) -> Wire:
    try:
        return wire.connect(server, timeout_s=5.0)
    except OSError as error:
        raise NurseryFailed(f"{server}: {error}") from error


def _spawn(library: Path) -> Wire:
    """Start a nursery as a process of its own; nobody forks it for us."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(library), "nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"LANG": "C.UTF-8"},
        )
    return Wire(ours)
