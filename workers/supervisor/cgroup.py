"""A cgroup v2 for an attempt: what is in it dies at once and can be seen to be gone.

Works with a plain cgroup2 mount, controllers or not. Knows nothing of ranks.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

_FOLDER = "trainmaster"


class Cgroup:
    """One cgroup, made for one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Move a process into it; 0 is the caller."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """Kill everything in it, forks in flight included."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def is_empty(self) -> bool:
        """Say whether no process is left in it or below it."""
        try:
            events = (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return True
        return "populated 0" in events

    def kill_until_empty(self, *, deadline_s: float) -> bool:
        """Kill until it is empty; False if something is left at `deadline_s` (monotonic)."""
        pause_s = 0.001
        while not self.is_empty():
            self.kill()
            if self.is_empty():
                break
            if time.monotonic() > deadline_s:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.1)
        return True

    def count_oom_kills(self) -> int:
        """Return how many of its processes the kernel killed for memory; 0 where not counted."""
        try:
            lines = (self.path / "memory.events").read_text().splitlines()
        except OSError:
            return 0
        counts = dict(line.split() for line in lines if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))

    def limit_memory(self, size_bytes: int) -> None:
        """Let the kernel kill in it what goes beyond; without a memory controller nothing does."""
        with contextlib.suppress(OSError):
            limit = self.path / "memory.max"
            if limit.exists():
                limit.write_text(str(size_bytes))

    def find_memory_limit(self) -> int | None:
        """Return what its processes may hold together, None without a limit."""
        try:
            said = (self.path / "memory.max").read_text().strip()
        except OSError:
            return None
        return int(said) if said.isdigit() else None

    def remove(self) -> None:
        """Remove it, and what a user may have made below it; it must be empty."""
        for folder, _names, _files in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def find_root() -> Path | None:
    """Return the folder below which attempts get their cgroups, or None where none can be."""
    for mount in _list_mounts():
        root = mount / _FOLDER
        try:
            root.mkdir(exist_ok=True)
        except OSError:
            continue
        if (root / "cgroup.kill").exists() and _may_join(root):
            _pass_memory_on(root)
            return root
    return None


def find_cgroup(root: Path | None, attempt_id: str) -> Cgroup | None:
    """Return the attempt's cgroup if there is one."""
    if root is None or not (root / attempt_id).is_dir():
        return None
    return Cgroup(root / attempt_id)


def make_cgroup(root: Path | None, attempt_id: str) -> Cgroup | None:
    """Return a cgroup for the attempt, or None where none can be made."""
    if root is None:
        return None
    path = root / attempt_id
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    return Cgroup(path)


def _pass_memory_on(root: Path) -> None:
    """Let attempts have limits of memory, where the machine lets us have them."""
    with contextlib.suppress(OSError):
        (root / "cgroup.subtree_control").write_text("+memory")


def _may_join(root: Path) -> bool:
    """Try it: whether a process may move there depends on more than one file's permissions."""
    trial = Cgroup(root / f"trial-{os.getpid()}")
    try:
        trial.path.mkdir(exist_ok=True)
        joined = subprocess.run(
            ["/bin/sh", "-c", 'echo 0 > "$0"', str(trial.path / "cgroup.procs")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10.0,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        trial.remove()
    return joined.returncode == 0


def _list_mounts() -> list[Path]:
    """Return where cgroup2 is mounted, as /proc/self/mountinfo has it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    mounts = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] == "cgroup2":
            mounts.append(Path(fields.split(" ")[4].encode().decode("unicode_escape")))
    return mounts
