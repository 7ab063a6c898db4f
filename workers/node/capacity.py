"""What this machine has to give: CPUs, memory, GPUs, as far as this process may use them."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_NVIDIA_SMI_LIMIT_S = 20.0
_NO_LIMIT_BYTES = 2**60


def discover_capacity(cpus: float | None = None) -> dict[str, Any]:
    """Return `cpu_milli`, `memory_mib` and `gpus` as the heartbeat has them.

    Args:
        cpus: what the operator gives to jobs, instead of the CPUs that are there.
    """
    return {
        "cpu_milli": count_cpu_milli() if cpus is None else round(cpus * 1000),
        "memory_mib": count_memory_mib(),
        "gpus": list_gpus(),
    }


def count_cpu_milli(root: Path = Path("/")) -> int:
    """Return thousandths of CPUs: those this process may run on, or its cgroup's quota if less."""
    allowed = len(os.sched_getaffinity(0)) * 1000
    quotas = [allowed]
    for folder in _list_cgroup_folders(root):
        fields = _read_words(folder / "cpu.max")
        if len(fields) == 2 and fields[0].isdigit():
            quotas.append(int(fields[0]) * 1000 // int(fields[1]))
        quota = _read_words(folder / "cpu.cfs_quota_us")
        period = _read_words(folder / "cpu.cfs_period_us")
        if quota and period and quota[0].isdigit():
            quotas.append(int(quota[0]) * 1000 // int(period[0]))
    return max(1, min(quotas))


def count_memory_mib(root: Path = Path("/")) -> int:
    """Return MiB: the machine's memory, or the cgroup's limit if that is less."""
    lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    for folder in _list_cgroup_folders(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _read_words(folder / name)
            if words and words[0].isdigit() and int(words[0]) < _NO_LIMIT_BYTES:
                limits.append(int(words[0]))
    return min(limits) // 1024**2


def list_gpus() -> list[dict[str, Any]]:
    """Return the NVIDIA GPUs that nvidia-smi lists; none when it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=_NVIDIA_SMI_LIMIT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """Return the GPUs in nvidia-smi's csv; lines of another shape are left out."""
    return [
        {
            "index": int(row[0]),
            "uuid": row[1].strip(),
            "model": row[2].strip(),
            "memory_mib": int(row[3]),
        }
        for row in csv.reader(text.splitlines(), skipinitialspace=True)
        if len(row) == 4 and row[0].isdigit() and row[3].strip().isdigit()
    ]


def find_address(url: str) -> str:
    """Return the address of this machine on the way to the service; nothing is sent."""
    parts = urlsplit(url)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _list_cgroup_folders(root: Path) -> list[Path]:
    """Return the cgroups of this process, and the roots of their mounts (containers see those)."""
    mount = root / "sys/fs/cgroup"
    folders = [mount, mount / "unified", mount / "cpu", mount / "memory"]
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        base = _find_mount(mount, controllers)
        if base is not None:
            folders.append(base / path.lstrip("/"))
    return folders


def _find_mount(mount: Path, controllers: str) -> Path | None:
    if controllers == "":
        return mount / "unified" if (mount / "unified").is_dir() else mount
    wanted = {"cpu", "memory"} & set(controllers.split(","))
    return mount / wanted.pop() if wanted else None


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
