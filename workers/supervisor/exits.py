"""What the ends of ranks mean: outcome, reason, message. Pure, but for reading the end of a log.

A message states what happened with its numbers, and then the way out.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.supervisor.files import open_regular
from workers.supervisor.memory import MemoryFacts, format_gib

_MESSAGE_CHARS = 500
_LINE_CHARS = 1000
_TAIL_BYTES = 32 * 1024
# What a rank says when it was a peer that failed.
_SECOND_HAND = re.compile(
    r"closed by peer|reset by peer|broken pipe|recvValue failed|DistBackendError"
    r"|DistNetworkError|gloo|NCCL|ProcessGroup",
    re.IGNORECASE,
)
_GPU_MEMORY = re.compile(
    r"(CUDA|HIP) out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating tensor"
)
_HOST_MEMORY = re.compile(
    r"^MemoryError\b|\b_ArrayMemoryError\b|DefaultCPUAllocator: (can't|not enough)"
    r"|std::bad_alloc|\[Errno 12\] Cannot allocate memory"
)
_SERVER_LOST = re.compile(r"^(?:trainmaster\.[\w.]+\.)?ServerLost: ")
_NON_FINITE = re.compile(r"^(?:trainmaster\.[\w.]+\.)?NonFiniteLoss: (?P<what>.*)$")
# What a rank says when the kernel has killed a process that loads data for it.
_CHILD_KILLED = re.compile(r"killed by signal: Killed")
# A rank that held this part of the machine is taken for the one that filled it.
_LARGE_PART = 0.25
_GPU_WAYS_OUT = (
    "Take a smaller batch_size (with gradients summed over several), activation checkpointing, "
    "bf16, parallel.shard = 2, or GPUs with more memory (resources.gpu_memory_gib)"
)
_HOST_WAYS_OUT = (
    "Ask for more resources.memory_gib, load less at once (fewer loader_workers, memory-mapped "
    "files), or take a smaller batch_size"
)
# What torch puts before each line of a traceback where ranks have joined a group.
_RANK_PREFIX = re.compile(r"^\[rank\d+\]:\s?")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended. `by_us`: after this supervisor had sent it a signal."""

    rank: int
    code: int | None
    signal: int | None
    by_us: bool
    order: int
    last_line: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether it ended by itself, well."""
        return self.code == 0

    @property
    def is_killed_from_outside(self) -> bool:
        """Whether somebody else sent a signal that no program earns by its own fault."""
        return not self.by_us and self.signal in (signal.SIGKILL, signal.SIGTERM)

    def with_last_line(self, line: str | None) -> RankEnd:
        """Return the same end with the last line of the rank's stderr."""
        return replace(self, last_line=line)


@dataclass(frozen=True)
class Verdict:
    """What is said of the attempt as a whole."""

    outcome: str
    reason: str | None = None
    message: str | None = None


def judge(
    ends: Sequence[RankEnd], memory: MemoryFacts, *, memory_gib: float | None = None
) -> Verdict:
    """Return the outcome of an attempt all of whose ranks have ended without being told to.

    Args:
        memory: what is known of theirs.
        memory_gib: what the job has asked for each of them.
    """
    if all(end.is_good for end in ends):
        return Verdict("succeeded")
    first = find_first_failure(ends)
    reason = _find_reason(first, memory, memory_gib)
    return Verdict("failed", reason, _describe(first, reason, memory, memory_gib))


def is_harmless(end: RankEnd, memory: MemoryFacts, memory_gib: float | None = None) -> bool:
    """Whether a rank was killed by somebody else, and not for the memory it took."""
    is_killed = end.is_killed_from_outside
    return is_killed and _find_reason(end, memory, memory_gib) == "RankKilled"


def find_first_failure(ends: Sequence[RankEnd]) -> RankEnd:
    """Return the rank that failed of itself: killed ones first, those that echo a peer last."""

    def rank_guilt(end: RankEnd) -> tuple[bool, bool, bool, int]:
        is_echo = bool(end.last_line and _SECOND_HAND.search(end.last_line))
        return (end.by_us, not end.is_killed_from_outside, is_echo, end.order)

    return min((end for end in ends if not end.is_good), key=rank_guilt)


def classify(end: RankEnd, verdict: Verdict) -> str:
    """Return the class of one rank's end: ok, user, infra or stopped."""
    if end.is_good:
        return "ok"
    if end.by_us or verdict.outcome == "stopped":
        return "stopped"
    is_ours = end.is_killed_from_outside or _SERVER_LOST.search(end.last_line or "")
    return "infra" if is_ours and verdict.reason == "RankKilled" else "user"


def read_last_line(log: Path) -> str | None:
    """Return the last line of a log that says something, bounded and without control characters."""
    try:
        with os.fdopen(open_regular(log, os.O_RDONLY), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    lines = [
        clean
        for line in text.replace("\r", "\n").split("\n")
        # Python marks the spot in newer tracebacks on lines of their own.
        if (clean := _RANK_PREFIX.sub("", clean_text(line, _LINE_CHARS))).strip(" ^~")
    ]
    telling = next((line for line in reversed(_list_last_words(lines)) if _is_telling(line)), None)
    return telling or (lines[-1] if lines else None)


def clean_text(text: str, limit_chars: int = _MESSAGE_CHARS) -> str:
    """Return one printable line, of at most 500 characters unless told otherwise."""
    plain = _ESCAPES.sub("", text)
    plain = "".join(char if char.isprintable() else " " for char in plain).strip()
    return plain if len(plain) <= limit_chars else plain[: limit_chars - 1] + "…"


def describe_ranks(
    ends: Sequence[RankEnd], verdict: Verdict, last_steps: dict[int, int | None]
) -> list[dict[str, Any]]:
    """Return the ranks' part of the exit record."""
    return [
        {
            "rank": end.rank,
            "code": end.code,
            "signal": end.signal,
            "class": classify(end, verdict),
            "last_step": last_steps.get(end.rank),
        }
        for end in sorted(ends, key=lambda end: end.rank)
    ]


def _list_last_words(lines: Sequence[str]) -> Sequence[str]:
    """Return what was said from the last traceback on; libraries may go on talking after it."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most")]
    return lines[starts[-1] :] if starts else lines[-1:]


def _is_telling(line: str) -> bool:
    return any(
        pattern.search(line) for pattern in (_NON_FINITE, _SERVER_LOST, _GPU_MEMORY, _HOST_MEMORY)
    )


def _find_reason(end: RankEnd, memory: MemoryFacts, memory_gib: float | None) -> str:
    if end.is_killed_from_outside:
        is_for_memory = memory.kills or _has_filled_machine(end.rank, memory, memory_gib)
        return "HostOutOfMemory" if is_for_memory and end.signal == signal.SIGKILL else "RankKilled"
    line = end.last_line or ""
    if _NON_FINITE.search(line):
        return "NonFiniteLoss"
    if _SERVER_LOST.search(line):
        return "RankKilled"  # a process of ours beside a rank, and no fault of the script
    if _GPU_MEMORY.search(line):
        return "GpuOutOfMemory"
    if _HOST_MEMORY.search(line) or (memory.kills and _CHILD_KILLED.search(line)):
        return "HostOutOfMemory"
    return "UserCodeError"


def _has_filled_machine(rank: int, memory: MemoryFacts, memory_gib: float | None) -> bool:
    """Whether the kernel killed somebody for memory, and this rank held much of it.

    Without a cgroup that counts, nothing says whom it killed: a small rank may have been the
    victim of another job.
    """
    peak = memory.peaks.get(rank, 0)
    is_beyond = memory_gib is not None and peak > memory_gib * 2**30
    return memory.kills_around > 0 and (is_beyond or peak > _LARGE_PART * memory.machine_bytes)


def _describe(end: RankEnd, reason: str, memory: MemoryFacts, memory_gib: float | None) -> str:
    line = end.last_line or ""
    non_finite = _NON_FINITE.search(line)
    if reason == "NonFiniteLoss" and non_finite:
        return clean_text(f"rank {end.rank}: {non_finite['what']}")
    if end.signal is not None:
        how = f"rank {end.rank} was killed by {name_signal(end.signal)}"
    else:
        how = f"rank {end.rank} exited with code {end.code}"
    held = _describe_memory(end.rank, memory, memory_gib)
    if end.is_killed_from_outside and reason == "HostOutOfMemory":
        return clean_text(f"{how}: the machine ran out of memory for it{held}. {_HOST_WAYS_OUT}")
    if end.is_killed_from_outside:
        return clean_text(f"{how}, not sent by Trainmaster{held}")
    told = f"{how}: {line}" if line else how
    if reason == "GpuOutOfMemory":
        return _with_way_out(told, _GPU_WAYS_OUT)
    if reason == "HostOutOfMemory":
        return _with_way_out(told + held, _HOST_WAYS_OUT)
    return clean_text(told)


def _with_way_out(told: str, way_out: str) -> str:
    """Return both in one bounded line; what happened is cut before the way out is."""
    room = _MESSAGE_CHARS - len(way_out) - 2
    return f"{clean_text(told, room).rstrip('.')}. {way_out}"


def _describe_memory(rank: int, memory: MemoryFacts, memory_gib: float | None) -> str:
    peak = memory.peaks.get(rank)
    if not peak:
        return ""
    parts = [f"it had held {format_gib(peak)}"]
    if memory_gib is not None:
        parts.append(f"the job asked for {memory_gib:g} GiB per worker")
    if memory.limit_bytes is not None:
        parts.append(f"its workers here may hold {format_gib(memory.limit_bytes)}")
    elif memory.machine_bytes:
        parts.append(f"the machine has {format_gib(memory.machine_bytes)}")
    return f" ({', '.join(parts)})"


def name_signal(number: int) -> str:
    """Return what people call a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
