"""How much memory ranks have used, and whether the kernel killed for it.

Reads /proc and the cgroups that a container shows; what follows from the numbers is `exits`'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.supervisor.cgroup import Cgroup

_NO_LIMIT_BYTES = 2**60
_GIB = 2**30


@dataclass(frozen=True)
class MemoryFacts:
    """What is known of an attempt's memory when its ranks have ended.

    Attributes:
        kills: processes of the attempt that the kernel killed for memory.
        kills_around: of the whole machine while the attempt ran.
        limit_bytes: what the attempt may use here, None without a limit.
        machine_bytes: what the machine, or the container of the node, has.
        peaks: the most that each rank has held.
    """

    kills: int = 0
    kills_around: int = 0
    limit_bytes: int | None = None
    machine_bytes: int = 0
    peaks: Mapping[int, int] = field(default_factory=dict)


class MemoryWatch:
    """Follows the memory of one attempt's ranks on this node."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._kills_before = _count_machine_kills(root)
        self.peaks: dict[int, int] = {}

    def look(self, pids: Mapping[int, int]) -> None:
        """Take note of the most that each rank has held so far."""
        for rank, pid in pids.items():
            peak = _find_peak(self._root, pid)
            if peak is not None:
                self.peaks[rank] = max(peak, self.peaks.get(rank, 0))

    def sum_up(self, cgroup: Cgroup | None) -> MemoryFacts:
        """Return what is known; call it while the cgroup is still there."""
        return MemoryFacts(
            kills=0 if cgroup is None else cgroup.count_oom_kills(),
            kills_around=_count_machine_kills(self._root) - self._kills_before,
            limit_bytes=None if cgroup is None else cgroup.find_memory_limit(),
            machine_bytes=_find_machine_bytes(self._root),
            peaks=dict(self.peaks),
        )


def format_gib(size_bytes: float) -> str:
    """Return a size as people say it."""
    return f"{size_bytes / _GIB:.3g} GiB"


def _find_peak(root: Path, pid: int) -> int | None:
    try:
        status = (root / f"proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _count_machine_kills(root: Path) -> int:
    try:
        text = (root / "proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _find_machine_bytes(root: Path) -> int:
    sizes = []
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        sizes = [int(kib) * 1024 for kib in re.findall(r"^MemTotal:\s*(\d+) kB", text)]
    except OSError:
        pass
    # Where a container shows its own cgroup, the limit is at the root of the mount.
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            said = (root / "sys/fs/cgroup" / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if said.isdigit() and int(said) < _NO_LIMIT_BYTES:
            sizes.append(int(said))
    return min(sizes, default=0)
