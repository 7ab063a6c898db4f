"""The process that holds ranks, for as long as somebody may want it to."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

from workers.node.library import build_library
from workers.supervisor import linux
from workers.supervisor.ranks import Ranks, open_nursery

# A nursery outlives the object that started it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _is_closed(ranks: Ranks, within_s: float) -> bool:

    return bool(select.select([ranks.wire], [], [], within_s)[0])


def test_one_that_waited_long_in_line_is_not_fenced_before_it_holds_a_rank(tmp_path: Path) -> None:
    library = build_library(tmp_path)
    past_s = linux.boottime_s() - 100.0

    ranks = open_nursery(
        None, library, run_file=tmp_path / "run.json", cgroup=None, fence_at_s=past_s
    )

    assert not _is_closed(ranks, within_s=0.5)
    ranks.wire.close()


def test_one_whose_supervisor_leaves_leaves_too(tmp_path: Path) -> None:
    library = build_library(tmp_path)
    ranks = open_nursery(
        None,
        library,
        run_file=tmp_path / "run.json",
        cgroup=None,
        fence_at_s=linux.boottime_s() + 100.0,
    )

    ranks.wire.close()

    deadline_s = time.monotonic() + 10.0
    while linux.find_start_ticks(ranks.nursery_pid) is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
