"""The process that holds an attempt's ranks: starts them, reports their ends, kills what is left.

Single-threaded and small, so that it can be forked from a preloaded interpreter and can always
answer. It obeys one supervisor over one connection; when that closes, or when the supervisor is
silent past the fence, everything it started dies. Knows no HTTP and no files of the attempt.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from workers.supervisor import linux, processes
from workers.supervisor.cgroup import Cgroup
from workers.supervisor.wire import Message, Wire

# Above the supervisor's own fence, so that it acts first when it can.
_FENCE_MARGIN_S = 2.0
_LOOK_AROUND_S = 2.0
_KILL_LIMIT_S = 30.0

Launch = Callable[[dict[str, Any], list[int]], NoReturn]


class Nursery:
    """Serves one supervisor until it goes away."""

    def __init__(
        self, connection: Wire, opening: Message, launch: Launch, *, has_store: bool = False
    ) -> None:
        """Take the supervisor's `opening` message: marker, cgroup (or null), fence_at.

        `has_store` tells the supervisor that rank 0 can serve the gang's store on a descriptor.
        """
        self._wire = connection
        self._has_store = has_store
        self._launch = launch
        self._marker = os.fsencode(opening["marker"])
        self._cgroup: Cgroup | None = Cgroup(Path(opening["cgroup"])) if opening["cgroup"] else None
        self._fence_at_s = float(opening["fence_at"])
        self._ranks: dict[int, int] = {}  # pid → rank
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Serve until the supervisor closes the connection; leave nothing behind."""
        linux.become_subreaper()
        linux.set_process_name("tm-nursery")
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._wire.socket.settimeout(5.0)
        try:
            self._wire.send({"op": "ready", "pid": os.getpid(), "has_store": self._has_store})
            self._serve()
        except OSError:
            pass  # the supervisor is gone, which is what the kill below is for
        finally:
            self._kill_everything()
        return 0

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._wire, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        # Without ranks there is nothing to fence; the opening may have waited for long in line.
        while not self._ranks or linux.boottime_s() < self._fence_at_s + _FENCE_MARGIN_S:
            for key, _events in selector.select(_LOOK_AROUND_S):
                if key.fileobj is self._wire:
                    if not self._wire.pump():
                        return
                    for message in self._wire.messages():
                        self._obey(message)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
            self._reap()

    def _obey(self, message: Message) -> None:
        operation = message["op"]
        if operation == "start":
            self._start(message, self._wire.take_fds(message))
        elif operation == "signal":
            for pid, rank in list(self._ranks.items()):
                if message["rank"] in (None, rank):
                    processes.send_signal(pid, int(message["signal"]))
        elif operation == "fence":
            self._fence_at_s = float(message["at"])

    def _start(self, order: Message, fds: list[int]) -> None:
        nursery = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_rank(order, fds, nursery)
        self._ranks[pid] = int(order["rank"])
        for fd in fds:
            os.close(fd)
        self._wire.send({"op": "started", "rank": order["rank"], "pid": pid})

    def _become_rank(self, order: Message, fds: list[int], nursery: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            linux.die_with_parent(signal.SIGKILL)
            if os.getppid() != nursery:
                os._exit(70)  # the nursery died before the line above
            self._launch(order, fds)
        except BaseException:  # noqa: BLE001  the rank must never return into the nursery's loop
            traceback.print_exc()
        finally:
            os._exit(70)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            rank = self._ranks.pop(pid, None)
            if rank is None:
                continue  # an orphan that was re-parented to this subreaper
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            self._wire.send({"op": "exited", "rank": rank, "code": code, "signal": number})

    def _kill_everything(self) -> None:
        deadline_s = time.monotonic() + _KILL_LIMIT_S
        for pid in self._ranks:
            processes.send_signal(pid, signal.SIGKILL)
        if self._cgroup is not None:
            self._cgroup.kill_until_empty(deadline_s=deadline_s)
        else:
            while time.monotonic() < deadline_s:
                family = processes.find_family({os.getpid()}, self._marker)
                for pid in family:
                    processes.send_signal(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                if not family:
                    return
                time.sleep(0.005)
