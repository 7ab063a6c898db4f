"""Finding and killing everything a process has started, with a cgroup and without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.supervisor import linux, processes
from workers.supervisor.cgroup import Cgroup, find_root, make_cgroup

# Starts a child, a grandchild in its own session, and a great-grandchild without environment.
FAMILY = """
import os, sys, time
pids = open(sys.argv[1], "a")
def note():
    pids.write(f"{os.getpid()}\\n"); pids.flush()
note()
if os.fork() == 0:
    note()
    if os.fork() == 0:
        os.setsid()
        note()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-c",
                f"import os,time; open({sys.argv[1]!r},'a').write(str(os.getpid())+chr(10)); "
                "time.sleep(1000)"], {})
time.sleep(1000)
"""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    pids = tmp_path / "pids"
    root = subprocess.Popen(
        [sys.executable, "-c", FAMILY, str(pids)], env={"TRAINMASTER_RUN": str(tmp_path)}
    )
    deadline = time.monotonic() + 10
    while not pids.exists() or len(pids.read_text().split()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = [int(pid) for pid in pids.read_text().split()]
    yield root, found
    for pid in found:
        processes.send_signal(pid, 9)
    root.wait()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if linux.find_start_ticks(pid) is not None]


def test_descent_finds_them_all(family: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    root, pids = family

    found = processes.find_family({root.pid}, b"NOBODY=1")

    assert found == set(pids) - {root.pid}


def test_the_environment_finds_those_that_kept_it(
    family: tuple[subprocess.Popen[bytes], list[int]], tmp_path: Path
) -> None:
    _root, pids = family

    found = processes.find_family((), f"TRAINMASTER_RUN={tmp_path}".encode())

    # The last has no environment, but it descends from one that has.
    assert found == set(pids)


def test_killing_the_family_leaves_nobody(
    family: tuple[subprocess.Popen[bytes], list[int]], tmp_path: Path
) -> None:
    root, pids = family
    marker = f"TRAINMASTER_RUN={tmp_path}".encode()

    left = processes.kill_family({root.pid}, marker, deadline_s=time.monotonic() + 10)

    assert left == set()
    assert alive(pids) == []


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    group = make_cgroup(find_root(), f"test-{os.getpid()}")
    if group is None:
        pytest.skip("no cgroup can be made here (needs a writable cgroup2 mount)")
    yield group
    group.kill_until_empty(deadline_s=time.monotonic() + 5)
    group.remove()


def test_a_cgroup_dies_as_a_whole_and_is_removed(cgroup: Cgroup, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    root = subprocess.Popen(
        ["/bin/sh", "-c", 'read go; exec "$@"', "sh", sys.executable, "-c", FAMILY, str(pids)],
        stdin=subprocess.PIPE,
    )
    cgroup.add(root.pid)
    assert root.stdin is not None
    root.stdin.write(b"\n")
    root.stdin.close()
    deadline = time.monotonic() + 10
    while not pids.exists() or len(pids.read_text().split()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not cgroup.is_empty()

    assert cgroup.kill_until_empty(deadline_s=time.monotonic() + 10)

    root.wait()
    assert alive([int(pid) for pid in pids.read_text().split()]) == []
    cgroup.remove()
    assert not cgroup.path.exists()
    assert cgroup.is_empty()
