"""CPU time of processes, as the kernel counts it, in steps of 10 ms. Linux only."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.02


@dataclass
class _Seen:
    """A process as it was last seen."""

    kind: str
    first_s: float
    last_s: float


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, threads included, children not.

    Raises:
        OSError: there is no such process any more.
    """
    return _read_stat(pid)[1]


def machine_busy_s() -> float:
    """Return the CPU time that all processes and the kernel of this machine have used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


class CpuWatch:
    """Adds up the CPU time of a service's processes by kind, the short-lived ones included.

    Looks at /proc every 20 ms, which costs CPU itself: watch a round that is not timed. What a
    process does after the last look at it is missed.

    Args:
        folder: the service's; its processes have it in their command line or environment.
        service_pid: of the service itself.
    """

    def __init__(self, folder: Path, service_pid: int) -> None:
        self._mark = os.fsencode(folder)
        self._service_pid = service_pid
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._foreign: set[tuple[int, int]] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs."""
        self._look()
        for seen in self._seen.values():
            seen.first_s = seen.last_s
        ended = threading.Event()

        def go_on() -> None:
            while not ended.wait(_LOOK_S):
                self._look()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._look()

    def totals_s(self) -> dict[str, float]:
        """Return the seconds by kind."""
        totals: dict[str, float] = {}
        for seen in self._seen.values():
            totals[seen.kind] = totals.get(seen.kind, 0.0) + seen.last_s - seen.first_s
        return totals

    def _look(self) -> None:
        for entry in os.listdir("/proc"):  # noqa: PTH208  fifty times a second: names are enough
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    self._look_at(int(entry))

    def _look_at(self, pid: int) -> None:
        name, spent_s, start_ticks = _read_stat(pid)
        identity = (pid, start_ticks)
        if identity in self._foreign:
            return
        seen = self._seen.get(identity)
        if seen is None:
            place = Path("/proc", str(pid))
            words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            if self._mark not in words:
                self._foreign.add(identity)
                return
            seen = self._seen[identity] = _Seen("", 0.0, 0.0)
        seen.kind, seen.last_s = self._kind_of(pid, name), spent_s

    def _kind_of(self, pid: int, name: str) -> str:
        if pid == self._service_pid:
            return "service"
        if name.startswith("tm-"):
            return "ranks" if name.startswith("tm-rank") else name.removeprefix("tm-")
        return "node daemon" if name.startswith("python") else "others"


def _read_stat(pid: int) -> tuple[str, float, int]:
    """Return the name, the CPU seconds and the start ticks of a process."""
    # The name, in brackets, may hold anything: what follows its end is numbers.
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    fields = tail.split()
    spent_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return head.partition("(")[2], spent_s, int(fields[19])
