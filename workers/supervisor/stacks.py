"""The Python stacks of ranks: ask for them by a signal, read what the ranks' handler has written.

Works while a rank is stuck inside a C call: the handler is `faulthandler`'s, which takes no lock.
A rank that has no such handler is not sent the signal, which would end it. Knows nothing of why
somebody asks.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.supervisor.files import find_size, open_regular

# One that no program uses by itself: SIGUSR1 and SIGUSR2 are taken by several.
STACK_SIGNAL = signal.SIGRTMAX - 2

_DUMP_LIMIT_BYTES = 256 * 1024
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)$')
# What runs a user's program in a process of ours; below it nothing is the user's.
_LAUNCHER = re.compile(r"workers/supervisor/rank_process\.py$|/runpy\.py$|^<frozen runpy>$")
_PACKAGES = re.compile(r"^.*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


@dataclass(frozen=True)
class Frame:
    """One call that has not returned."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True)
class Stack:
    """Where one process stands: its threads, the main one first, the innermost call first."""

    threads: tuple[tuple[Frame, ...], ...] = ()

    @property
    def main(self) -> tuple[Frame, ...]:
        """The main thread's calls."""
        return self.threads[0] if self.threads else ()

    @property
    def route(self) -> tuple[tuple[str, str], ...]:
        """Which functions the main thread is in; a loop that goes on within one keeps it."""
        return tuple((frame.file, frame.function) for frame in self.main)

    def render(self, limit_chars: int) -> str:
        """Return it as text, the main thread first, cut at `limit_chars`."""
        blocks = []
        for number, frames in enumerate(self.threads):
            title = "main thread" if number == 0 else f"thread {number}"
            blocks.append("\n".join([f"{title}:", *(f"  {frame}" for frame in frames)]))
        text = "\n".join(blocks)
        return text if len(text) <= limit_chars else text[: limit_chars - 2] + "\n…"


def parse_dump(text: str, code: Path) -> Stack:
    """Return the stack that `faulthandler` has written; paths below `code` lose it, ours are left.

    Args:
        text: one dump of all threads, the main thread last.
        code: the folder of the user's files.
    """
    threads: list[list[Frame]] = []
    is_cut = False
    for line in text.splitlines():
        if line.startswith(("Thread ", "Current thread ")):
            threads.append([])
            is_cut = False
            continue
        found = _FRAME.match(line)
        if found is None or not threads or is_cut:
            continue
        if _LAUNCHER.search(found["file"]):
            is_cut = True
            continue
        number = int(found["line"]) if found["line"].isdigit() else 0
        threads[-1].append(Frame(_shorten(found["file"], code), number, found["function"]))
    return Stack(tuple(tuple(frames) for frames in reversed(threads) if frames))


class Dumps:
    """The dumps of one run's ranks, from one request to the next."""

    def __init__(self, folder: Path, code: Path) -> None:
        self._folder, self._code = folder, code
        self._starts: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def begin(self, pids: dict[int, int]) -> list[int]:
        """Note where each rank's next dump will begin; return the ranks that can be asked."""
        able = [rank for rank, pid in pids.items() if _has_handler(pid)]
        self._starts = {rank: find_size(self._folder / str(rank)) for rank in able}
        self._sizes = dict(self._starts)
        return able

    def is_complete(self) -> bool:
        """Whether every rank that was asked has written, and nobody has since the last look."""
        sizes = {rank: find_size(self._folder / str(rank)) for rank in self._starts}
        is_steady = sizes == self._sizes
        self._sizes = sizes
        return is_steady and all(sizes[rank] > start for rank, start in self._starts.items())

    def read(self) -> dict[int, Stack]:
        """Return the stacks of the ranks that have written."""
        found = {}
        for rank, start in self._starts.items():
            text = _read_from(self._folder / str(rank), start)
            if text:
                found[rank] = parse_dump(text, self._code)
        return found


def group_stacks(stacks: dict[int, Stack]) -> list[tuple[list[int], Stack]]:
    """Return the ranks that stand in the same place together, those with the fewest first."""
    groups: dict[Stack, list[int]] = {}
    for rank, stack in sorted(stacks.items()):
        groups.setdefault(stack, []).append(rank)
    return sorted(((ranks, stack) for stack, ranks in groups.items()), key=lambda one: len(one[0]))


def find_own_frame(frames: Sequence[Frame]) -> Frame | None:
    """Return the innermost call of the user's own, else the innermost; None without any."""
    own = [frame for frame in frames if not frame.file.startswith(("/", "<", "…"))]
    return next(iter(own), next(iter(frames), None))


def _shorten(file: str, code: Path) -> str:
    for folder in {str(code), os.path.realpath(code)}:
        if file.startswith(folder + "/"):
            return file[len(folder) + 1 :]
    return _PACKAGES.sub("…/", file)


def _has_handler(pid: int) -> bool:
    """Whether the process catches the signal; by default it would end the process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (STACK_SIGNAL - 1) & 1)


def _read_from(path: Path, start: int) -> str:
    try:
        handle = open_regular(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.pread(handle, _DUMP_LIMIT_BYTES, start).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(handle)
