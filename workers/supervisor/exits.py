"""What the ends of ranks mean: outcome, reason, message. Pure, but for reading the end of a log."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.supervisor.files import open_regular

_MESSAGE_CHARS = 500
_TAIL_BYTES = 32 * 1024
# What a rank says when it was a peer that failed.
_SECOND_HAND = re.compile(
    r"closed by peer|reset by peer|broken pipe|recvValue failed|DistBackendError"
    r"|DistNetworkError|gloo|NCCL|ProcessGroup",
    re.IGNORECASE,
)
_GPU_MEMORY = re.compile(r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError")
_HOST_MEMORY = re.compile(r"^MemoryError\b|DefaultCPUAllocator: can't allocate memory")
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


def judge(ends: Sequence[RankEnd], *, oom_kills: int) -> Verdict:
    """Return the outcome of an attempt all of whose ranks have ended without being told to."""
    if all(end.is_good for end in ends):
        return Verdict("succeeded")
    first = find_first_failure(ends)
    reason = _find_reason(first, oom_kills)
    return Verdict("failed", reason, _describe(first, reason))


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
    return "infra" if end.is_killed_from_outside and verdict.reason == "RankKilled" else "user"


def read_last_line(log: Path) -> str | None:
    """Return the last line of a log that says something, bounded and without control characters."""
    try:
        with os.fdopen(open_regular(log, os.O_RDONLY), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    for line in reversed(text.replace("\r", "\n").split("\n")):
        clean = clean_text(line)
        # Python marks the spot in newer tracebacks on lines of their own.
        if clean.strip(" ^~"):
            return clean
    return None


def clean_text(text: str) -> str:
    """Return one printable line of at most 500 characters."""
    plain = _ESCAPES.sub("", text)
    plain = "".join(char if char.isprintable() else " " for char in plain).strip()
    return plain if len(plain) <= _MESSAGE_CHARS else plain[: _MESSAGE_CHARS - 1] + "…"


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


def _find_reason(end: RankEnd, oom_kills: int) -> str:
    if end.is_killed_from_outside:
        return "HostOutOfMemory" if oom_kills and end.signal == signal.SIGKILL else "RankKilled"
    line = end.last_line or ""
    if _GPU_MEMORY.search(line):
        return "GpuOutOfMemory"
    if _HOST_MEMORY.search(line):
        return "HostOutOfMemory"
    return "UserCodeError"


def _describe(end: RankEnd, reason: str) -> str:
    if end.signal is not None:
        how = f"rank {end.rank} was killed by {_name_signal(end.signal)}"
        if reason == "HostOutOfMemory":
            return f"{how}: the machine ran out of memory for it"
        if reason == "RankKilled":
            return f"{how}, not sent by Trainmaster"
    else:
        how = f"rank {end.rank} exited with code {end.code}"
    return clean_text(f"{how}: {end.last_line}" if end.last_line else how)


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
