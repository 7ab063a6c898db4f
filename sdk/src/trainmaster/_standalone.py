"""A rank off the service: the terminal, and a folder `trainmaster-runs/<n>` for each run.

Rank 0 keeps the records; what other ranks log is dropped, because they could not agree on the
folder without talking to each other. The folder is made by the first thing that needs it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster._checkpoint_folder import (
    Checkpoint,
    commit_folder,
    flush_folder,
    fresh_folder,
    open_checkpoint,
    prune,
)
from trainmaster._job_errors import RunError
from trainmaster._pulse import Pulse
from trainmaster._spool import OWN_METRICS, Number, Spool
from trainmaster._wishes import watch_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._wishes import Wishes

RUNS_FOLDER = "trainmaster-runs"
KEEP_LAST = 2
PRINT_INTERVAL_S = 0.5


class Standalone:
    """Keeps the records of a run that nobody supervises."""

    def __init__(self, description: Mapping[str, Any], rank: int, wishes: Wishes) -> None:
        self._rank = rank
        self._start_folder = Path.cwd()
        self._folder: Path | None = None
        self._spool: Spool | None = None
        self._terminal = _Terminal()
        self.pulse = Pulse()
        resume = description.get("resume")
        if isinstance(resume, dict):
            resume = resume.get("path")
        self.resume = open_checkpoint(Path(resume)) if resume else None
        watch_sigterm(wishes, only_once=True)

    def log(self, step: int, time_s: float, values: Mapping[str, Number]) -> None:
        """Put one line of metrics on disk, and some of them on the terminal."""
        if self._rank != 0:
            return
        if self._spool is None:
            self._spool = Spool(str(self._get_folder() / "metrics.jsonl"))
        self._spool.append(step, time_s, values)
        self._terminal.show(step, values)

    def refresh_wishes(self) -> None:
        """Nothing to do: here only a signal asks for anything."""

    def progress(self, step: int, total_steps: int | None) -> None:
        """Remember the total for the terminal."""
        del step
        self._terminal.total_steps = total_steps

    def checkpoint_dir(self) -> Path:
        """Return a fresh folder below this run's own."""
        return fresh_folder(self._get_folder() / "checkpoints", self._rank)

    def commit(self, folder: Path, step: int, metrics: Mapping[str, Number]) -> Checkpoint:
        """Make the checkpoint exist, then drop all but the last two."""
        checkpoints = self._get_folder() / "checkpoints"
        if folder.resolve().parent != checkpoints.resolve():
            raise RunError(f"{folder} is not a folder that run.checkpoint_dir() gave: use one")
        flush_folder(folder)
        checkpoint = commit_folder(folder, checkpoints, step, metrics)
        prune(checkpoints, KEEP_LAST)
        self._terminal.write(f"checkpoint of step {step}: {os.path.relpath(checkpoint.path)}")
        return checkpoint

    def _get_folder(self) -> Path:
        if self._rank != 0:
            raise RunError(
                "off the service only rank 0 keeps files: call this under `if run.rank == 0`"
            )
        if self._folder is None:
            self._folder = _make_next_folder(self._start_folder / RUNS_FOLDER)
            self._terminal.write(f"records of this run: {os.path.relpath(self._folder)}")
        return self._folder


class _Terminal:
    """Prints metric lines, rarely when they come often, and always the last one."""

    def __init__(self) -> None:
        self.total_steps: int | None = None
        self._kept_back = ""
        self._names: tuple[str, ...] = ()
        self._next_s = 0.0

    def show(self, step: int, values: Mapping[str, Number]) -> None:
        values = {name: each for name, each in values.items() if not name.startswith(OWN_METRICS)}
        if not values:
            return  # nothing that the script has said
        shown = "  ".join(f"{name} {value:.6g}" for name, value in values.items())
        of_total = f"/{self.total_steps}" if self.total_steps else ""
        line = f"step {step}{of_total}  {shown}"
        names = tuple(values)
        now = time.monotonic()
        if self._next_s == 0.0:
            atexit.register(self._show_kept_back)
        if names == self._names and now < self._next_s:
            self._kept_back = line
            return
        self._names, self._next_s = names, now + PRINT_INTERVAL_S
        self._kept_back = ""
        self.write(line)

    def write(self, line: str) -> None:
        self._show_kept_back()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def _show_kept_back(self) -> None:
        kept_back, self._kept_back = self._kept_back, ""
        if kept_back:
            self.write(kept_back)


def _make_next_folder(runs: Path) -> Path:
    runs.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in runs.iterdir() if path.name.isdecimal()]
    number = max(numbers, default=0)
    while True:  # another run may take the number first
        number += 1
        try:
            (runs / str(number)).mkdir()
        except FileExistsError:
            continue
        return runs / str(number)
