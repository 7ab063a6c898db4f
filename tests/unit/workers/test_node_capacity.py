"""What a machine has to give, read from small trees that look like /."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.node.capacity import count_cpu_milli, count_memory_mib, parse_gpus

MEMINFO = "MemTotal:       16384000 kB\nMemFree: 1 kB\n"


def make_root(folder: Path, **files: str) -> Path:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(MEMINFO)
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


ALL = len(os.sched_getaffinity(0)) * 1000


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({}, ALL, id="no cgroup"),
        pytest.param({"sys__fs__cgroup__cpu.max": "50000 100000\n"}, 500, id="a v2 quota"),
        pytest.param({"sys__fs__cgroup__cpu.max": "max 100000\n"}, ALL, id="v2 without a quota"),
        pytest.param(
            {
                "proc__self__cgroup": "0::/a/b\n",
                "sys__fs__cgroup__a__b__cpu.max": "25000 100000\n",
            },
            250,
            id="a v2 quota of the own cgroup",
        ),
        pytest.param(
            {
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "75000\n",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
            },
            750,
            id="a v1 quota",
        ),
        pytest.param(
            {
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1\n",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
            },
            ALL,
            id="v1 without a quota",
        ),
    ],
)
def test_cpus_are_those_it_may_use(files: dict[str, str], want: int, tmp_path: Path) -> None:
    assert count_cpu_milli(make_root(tmp_path, **files)) == want


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({}, 16_000, id="the machine's"),
        pytest.param({"sys__fs__cgroup__memory.max": "1073741824"}, 1024, id="a v2 limit"),
        pytest.param({"sys__fs__cgroup__memory.max": "max"}, 16_000, id="v2 without a limit"),
        pytest.param(
            {"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712"},
            16_000,
            id="v1 without a limit",
        ),
    ],
)
def test_memory_is_what_it_may_use(files: dict[str, str], want: int, tmp_path: Path) -> None:
    assert count_memory_mib(make_root(tmp_path, **files)) == want


def test_gpus_are_read_from_the_tools_csv() -> None:
    text = "0, GPU-aa, NVIDIA H200, 143771\n1, GPU-bb, NVIDIA H200, [N/A]\nNo devices were found\n"

    assert parse_gpus(text) == [
        {"index": 0, "uuid": "GPU-aa", "model": "NVIDIA H200", "memory_mib": 143771}
    ]
