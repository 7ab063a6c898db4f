"""How much memory ranks have used, and who was killed for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.supervisor.cgroup import Cgroup
from workers.supervisor.memory import MemoryWatch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What a machine shows, as far as it matters here."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return tmp_path


def test_the_peak_of_a_rank_is_the_most_it_has_held(root: Path) -> None:
    watch = MemoryWatch(root)
    for kib in (1000, 5000, 4000):
        (root / "proc/7/status").write_text(f"Name:\tpython\nVmHWM:\t{kib:8} kB\n")
        watch.look({3: 7, 4: 8})

    assert watch.sum_up(None).peaks == {3: 5000 * 1024}


def test_kills_are_counted_from_the_start_of_the_attempt(root: Path) -> None:
    watch = MemoryWatch(root)
    (root / "proc/vmstat").write_text("oom_kill 5\n")

    assert watch.sum_up(None).kills_around == 2


@pytest.mark.parametrize(
    ("limit", "want_gib"),
    [(None, 16), ("max", 16), (str(4 * 2**30), 4), (str(2**63), 16)],
    ids=["no cgroup", "no limit", "a limit", "a limit that is none"],
)
def test_the_machine_is_as_large_as_its_container(
    root: Path, limit: str | None, want_gib: int
) -> None:
    if limit is not None:
        (root / "sys/fs/cgroup/memory.max").write_text(limit + "\n")

    assert MemoryWatch(root).sum_up(None).machine_bytes == want_gib * 2**30


def test_the_attempts_own_cgroup_says_its_limit_and_its_kills(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "memory.max").write_text("max\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    cgroup = Cgroup(folder)
    cgroup.limit_memory(2**30)

    facts = MemoryWatch(root).sum_up(cgroup)

    assert (facts.kills, facts.limit_bytes) == (1, 2**30)


def test_without_a_controller_there_is_no_limit(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path)

    cgroup.limit_memory(2**30)

    assert cgroup.find_memory_limit() is None
    assert list(tmp_path.iterdir()) == []


def test_this_machine_shows_what_is_looked_for() -> None:
    watch = MemoryWatch()

    watch.look({0: os.getpid()})

    facts = watch.sum_up(None)
    assert facts.peaks[0] > 2**20
    assert facts.machine_bytes > facts.peaks[0]
