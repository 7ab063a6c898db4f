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
from workers.supervisor.memory import MemoryFacts

GIB = 2**30


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
    ("one", "kills", "want"),
    [
        (end(0, 1, line="ValueError: x"), 0, ("UserCodeError", "user")),
        (
            end(0, 1, line="trainmaster.train.outer.link.ServerLost: server 0 is gone"),
            0,
            ("RankKilled", "infra"),
        ),
        (end(0, None, signal.SIGSEGV), 0, ("UserCodeError", "user")),
        (end(0, None, signal.SIGKILL), 0, ("RankKilled", "infra")),
        (end(0, None, signal.SIGTERM), 0, ("RankKilled", "infra")),
        (end(0, None, signal.SIGKILL), 1, ("HostOutOfMemory", "user")),
        (end(0, 1, line="MemoryError"), 0, ("HostOutOfMemory", "user")),
        (end(0, 1, line="numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7 TiB"), 0,
         ("HostOutOfMemory", "user")),
        (end(0, 1, line="RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. "
             "DefaultCPUAllocator: can't allocate memory"), 0, ("HostOutOfMemory", "user")),
        (end(0, 1, line="RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed."), 1,
         ("HostOutOfMemory", "user")),
        (end(0, 1, line="torch.OutOfMemoryError: CUDA out of memory."), 0,
         ("GpuOutOfMemory", "user")),
        (end(0, 1, line="trainmaster._job_errors.NonFiniteLoss: loss is nan at step 3"), 0,
         ("NonFiniteLoss", "user")),
        (end(0, 1, line="ValueError: NonFiniteLoss: not ours"), 0, ("UserCodeError", "user")),
    ],
)  # fmt: skip
def test_one_failed_rank_means(one: RankEnd, kills: int, want: tuple[str, str]) -> None:
    verdict = judge([one], MemoryFacts(kills=kills))

    assert (verdict.reason, classify(one, verdict)) == want


def test_all_good_is_success() -> None:
    assert judge([end(0, 0), end(1, 0)], MemoryFacts()) == Verdict("succeeded")


@pytest.mark.parametrize(
    ("memory", "memory_gib", "reason"),
    [
        pytest.param(
            MemoryFacts(kills_around=1, machine_bytes=16 * GIB, peaks={0: 14 * GIB}), None,
            "HostOutOfMemory", id="it filled the machine, and the kernel killed",
        ),
        pytest.param(
            MemoryFacts(kills_around=1, machine_bytes=64 * GIB, peaks={0: 3 * GIB}), 2,
            "HostOutOfMemory", id="it held more than it had asked for",
        ),
        pytest.param(
            MemoryFacts(kills_around=1, machine_bytes=16 * GIB, peaks={0: GIB}), 2,
            "RankKilled", id="it was small: somebody else filled the machine",
        ),
        pytest.param(
            MemoryFacts(machine_bytes=16 * GIB, peaks={0: 14 * GIB}), None,
            "RankKilled", id="the kernel killed nobody",
        ),
    ],
)  # fmt: skip
def test_without_a_cgroup_that_counts_a_rank_that_was_killed_is_judged_by_its_size(
    memory: MemoryFacts, memory_gib: float | None, reason: str
) -> None:
    killed = end(0, None, signal.SIGKILL)

    assert judge([killed], memory, memory_gib=memory_gib).reason == reason


@pytest.mark.parametrize(
    ("one", "memory", "parts"),
    [
        pytest.param(
            end(1, None, signal.SIGKILL),
            MemoryFacts(kills=1, limit_bytes=4 * GIB, peaks={1: 4 * GIB - 2**20}),
            ["rank 1 was killed by SIGKILL", "it had held 4 GiB", "asked for 2 GiB per worker",
             "may hold 4 GiB", "more resources.memory_gib"],
            id="by the kernel",
        ),
        pytest.param(
            end(0, 1, line="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 "
                "GiB. GPU 0 has a total capacity of 79.10 GiB of which 5.27 GiB is free."
                + "x" * 900),
            MemoryFacts(),
            ["Tried to allocate 20.00 GiB", "capacity of 79.10 GiB", "smaller batch_size",
             "activation checkpointing", "parallel.shard = 2"],
            id="on the GPU",
        ),
        pytest.param(
            end(0, 1, line="MemoryError"), MemoryFacts(peaks={0: GIB}, machine_bytes=2 * GIB),
            ["MemoryError", "it had held 1 GiB", "the machine has 2 GiB", "loader_workers"],
            id="in Python",
        ),
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_told_with_its_numbers_and_a_way_out(
    one: RankEnd, memory: MemoryFacts, parts: list[str]
) -> None:
    message = judge([one], memory, memory_gib=2).message or ""

    assert [part for part in parts if part not in message] == []
    assert len(message) <= 500


def test_what_a_library_says_after_the_traceback_does_not_hide_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "0.stderr"
    log.write_text(
        "torch.OutOfMemoryError: CUDA out of memory. (of a try that was given up)\n"
        "Traceback (most recent call last):\n  File x\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "[W ProcessGroupNCCL.cpp:1250] destroy_process_group() was not called\n"
    )

    assert (read_last_line(log) or "").startswith("torch.OutOfMemoryError: CUDA out of memory. T")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("trainmaster._job_errors.NonFiniteLoss: loss is nan at step 7", "NonFiniteLoss"),
        ("trainmaster._job_errors.ServerLost: server 0 is gone", "RankKilled"),
        ("MemoryError", "HostOutOfMemory"),
        ("ValueError: bad data", "UserCodeError"),
    ],
)
def test_what_torch_puts_before_the_lines_of_a_rank_hides_no_cause(
    tmp_path: Path, line: str, reason: str
) -> None:
    log = tmp_path / "1.stderr"
    log.write_text(
        f"[rank1]: Traceback (most recent call last):\n[rank1]:   File x\n[rank1]: {line}\n"
        "[W ProcessGroupGloo.cpp:99] destroy_process_group() was not called\n"
    )
    told = end(1, 1).with_last_line(read_last_line(log))
    if reason == "UserCodeError":  # nothing tells it from what was said later
        told = end(1, 1).with_last_line(line)

    verdict = judge([told], MemoryFacts())

    assert verdict.reason == reason
    assert "[rank1]" not in (verdict.message or "")


def test_an_older_trouble_that_was_overcome_is_not_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "0.stderr"
    log.write_text(
        "Traceback (most recent call last):\nMemoryError\nsmaller batch\n"
        "Traceback (most recent call last):\nValueError: x\n"
    )

    assert read_last_line(log) == "ValueError: x"


def test_the_last_line_that_says_something_is_found(tmp_path: Path) -> None:
    log = tmp_path / "0.stderr"
    log.write_bytes(b"Traceback\n\x1b[31mValueError: \xff bad\x1b[0m\r\n    ^^^^\n  \n")

    assert read_last_line(log) == "ValueError: \ufffd bad"


def test_a_message_is_one_bounded_line() -> None:
    text = clean_text("a\x00b\x1b[2Jc" + "x" * 1000)

    assert text.startswith("a bcx")
    assert len(text) == 500
    assert text.isprintable()
