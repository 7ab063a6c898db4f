"""What the ends of ranks mean."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from workers.supervisor.exits import (
    RankEnd,
    Verdict,
    classify,
    clean_text,
    find_first_failure,
    judge,
    read_last_line,
)


def end(
    rank: int, code: int | None = None, number: int | None = None, line: str | None = None,
    *, by_us: bool = False, order: int = 0,
) -> RankEnd:  # fmt: skip
    return RankEnd(rank, code, number, by_us, order, line)


@pytest.mark.parametrize(
    ("ends", "want"),
    [
        pytest.param(
            [end(0, 1, line="ValueError", order=0), end(1, 2, line="KeyError", order=1)], 0,
            id="the one that ended first",
        ),
        pytest.param(
            [
                end(0, 1, line="RuntimeError: Connection closed by peer [127.0.0.1]", order=0),
                end(1, 1, line="ValueError: bad data", order=1),
            ], 1,
            id="not the one that only noticed its peer's death",
        ),
        pytest.param(
            [end(0, 1, line="ValueError", order=0), end(1, None, 9, order=1)], 1,
            id="the one that was killed from outside",
        ),
        pytest.param(
            [end(0, None, 15, by_us=True, order=0), end(1, 1, line="ValueError", order=1)], 1,
            id="never one that we ended",
        ),
        pytest.param([end(0, 0), end(1, 1, order=1)], 1, id="never one that ended well"),
    ],
)  # fmt: skip
def test_the_rank_to_blame_is(ends: list[RankEnd], want: int) -> None:
    assert find_first_failure(ends).rank == want


@pytest.mark.parametrize(
    ("one", "oom_kills", "want"),
    [
        (end(0, 1, line="ValueError: x"), 0, ("UserCodeError", "user")),
        (end(0, None, signal.SIGSEGV), 0, ("UserCodeError", "user")),
        (end(0, None, signal.SIGKILL), 0, ("RankKilled", "infra")),
        (end(0, None, signal.SIGTERM), 0, ("RankKilled", "infra")),
        (end(0, None, signal.SIGKILL), 1, ("HostOutOfMemory", "user")),
        (end(0, 1, line="MemoryError"), 0, ("HostOutOfMemory", "user")),
        (end(0, 1, line="torch.OutOfMemoryError: CUDA out of memory."), 0,
         ("GpuOutOfMemory", "user")),
    ],
)  # fmt: skip
def test_one_failed_rank_means(one: RankEnd, oom_kills: int, want: tuple[str, str]) -> None:
    verdict = judge([one], oom_kills=oom_kills)

    assert (verdict.reason, classify(one, verdict)) == want


def test_all_good_is_success() -> None:
    assert judge([end(0, 0), end(1, 0)], oom_kills=0) == Verdict("succeeded")


def test_the_last_line_that_says_something_is_found(tmp_path: Path) -> None:
    log = tmp_path / "0.stderr"
    log.write_bytes(b"Traceback\n\x1b[31mValueError: \xff bad\x1b[0m\r\n    ^^^^\n  \n")

    assert read_last_line(log) == "ValueError: \ufffd bad"


def test_a_message_is_one_bounded_line() -> None:
    text = clean_text("a\x00b\x1b[2Jc" + "x" * 1000)

    assert text.startswith("a bcx")
    assert len(text) == 500
    assert text.isprintable()
