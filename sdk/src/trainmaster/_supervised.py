"""A rank on the service: metrics into the spool, checkpoints and wishes over the socket."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster._checkpoint_folder import Checkpoint, flush_folder, fresh_folder
from trainmaster._job_errors import RunError
from trainmaster._link import Link
from trainmaster._pulse import Pulse
from trainmaster._spool import Number, Spool
from trainmaster._stacks import allow_stacks
from trainmaster._wishes import watch_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._wishes import Wishes

COMMIT_ANSWER_S = 1800.0  # the supervisor reads and hashes everything before it answers
COMMIT_CONNECT_S = 15.0


class Supervised:
    """Keeps a rank's records by way of its supervisor."""

    def __init__(self, description: Mapping[str, Any], rank: int, wishes: Wishes) -> None:
        self._checkpoints = Path(description["checkpoints_dir"])
        self._rank = rank
        self._wishes = wishes
        self._spool = Spool(str(Path(description["spool_dir"], f"{rank}.jsonl")))
        self._link = Link(description["socket"], rank, wishes)
        resume = description.get("resume")
        self.resume = Checkpoint(Path(resume["path"]), int(resume["step"])) if resume else None
        pulses, stacks = description.get("pulses_dir"), description.get("stacks")
        self.pulse = Pulse(str(Path(pulses, str(rank))) if pulses else None)
        if stacks:
            with contextlib.suppress(OSError):  # a rank trains without
                allow_stacks(str(Path(stacks["folder"], str(rank))), int(stacks["signal"]))
        watch_sigterm(wishes, only_once=False)

    def log(self, step: int, time_s: float, values: Mapping[str, Number]) -> None:
        """Put one line of metrics on disk."""
        self._spool.append(step, time_s, values)
        self.pulse.beat()

    def refresh_wishes(self) -> None:
        """Make sure that somebody can tell us to stop."""
        self._link.open()

    def progress(self, step: int, total_steps: int | None) -> None:
        """Say how far the training is; rank 0 speaks for all, each rank shows its own."""
        self.pulse.note_step(step, is_last=step == total_steps)
        if self._rank == 0:
            self._link.progress(step, total_steps)

    def checkpoint_dir(self) -> Path:
        """Return a fresh folder that the supervisor will accept."""
        return fresh_folder(self._checkpoints, self._rank)

    def commit(self, folder: Path, step: int, metrics: Mapping[str, Number]) -> Checkpoint:
        """Flush the folder and hand it over."""
        if folder.resolve().parent != self._checkpoints.resolve():
            raise RunError(f"{folder} is not a folder that run.checkpoint_dir() gave: use one")
        flush_folder(folder)
        files = self._link.commit(
            self._checkpoints / folder.name,
            step,
            metrics,
            answer_s=COMMIT_ANSWER_S,
            connect_s=COMMIT_CONNECT_S,
        )
        return Checkpoint(files, step)
