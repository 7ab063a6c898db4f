"""Checkpoints of a training: taken by all ranks together, written by rank 0 in the background.

One at a time. A failure is raised by the next call, so that no run believes in a checkpoint it
does not have.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from typing import TYPE_CHECKING, Any

from trainmaster._finite import complain
from trainmaster._spool import VALUES_PER_LINE_MAX, only_finite
from trainmaster.train import randomness
from trainmaster.train.losses import find_nan
from trainmaster.train.snapshot import gather_state, take_snapshot, write_snapshot

if TYPE_CHECKING:
    from trainmaster._order import Cursor
    from trainmaster.run import Run
    from trainmaster.train.metrics import MetricLog
    from trainmaster.train.snapshot import Snapshot
    from trainmaster.train.stateful import Stateful
    from trainmaster.train.synchronization import Synchronization


class Saver:
    """Takes, writes and commits the snapshots of one run."""

    def __init__(
        self, run: Run, synchronization: Synchronization, metrics: MetricLog, saved_step: int | None
    ) -> None:
        """`saved_step` is that of the checkpoint which the run resumes from, if it does."""
        self._run = run
        self._synchronization = synchronization
        self._metrics = metrics
        self._saved: tuple[int | None, dict[str, Any]] = (saved_step, {})
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, things: Stateful, cursor: Cursor) -> None:
        """Begin a checkpoint of a training that stands still; every rank must call it.

        The state is copied when this returns. It waits for the checkpoint before.

        Raises:
            RunError: the one before could not be written or committed.
            OSError: the disk did not take the one before.
        """
        if self._synchronization.rank == 0:
            self._metrics.flush()
            self.wait()  # before anything is copied: two states would take twice the memory
        own = {
            "randomness": randomness.capture(self._synchronization.device),
            "synchronization": self._synchronization.state_dict(),
        }
        ranks = self._synchronization.gather(own)
        gathered = gather_state(things, self._synchronization)
        if ranks is None or gathered is None:
            return
        layout = self._synchronization.layout
        metrics = dict(self._metrics.latest)
        ranked_by = dict(itertools.islice(only_finite(metrics).items(), VALUES_PER_LINE_MAX))
        snapshot = take_snapshot(things, gathered, layout, cursor, ranks, ranked_by)
        self._saved = (cursor.step, metrics)
        self._thread = threading.Thread(
            target=self._write, args=(snapshot,), name="trainmaster-saver", daemon=True
        )
        self._thread.start()

    def save_last(self, things: Stateful, cursor: Cursor) -> None:
        """Save unless the newest checkpoint has this step and these metrics; then wait for it."""
        self._metrics.flush()
        is_new = self._synchronization.rank == 0 and self._saved != (
            cursor.step,
            self._metrics.latest,
        )
        if things.models and self._synchronization.maximum([is_new])[0]:
            self.save(things, cursor)
        self.wait()

    def is_writing(self) -> bool:
        """Return whether a checkpoint is on its way to the disk, and to whoever takes it over."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until nothing is being written; raises as `save` does."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write(self, snapshot: Snapshot) -> None:
        try:
            self._refuse_nan(snapshot)
            folder = self._run.checkpoint_dir()
            try:
                write_snapshot(snapshot, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            metrics = snapshot.meta["metrics"]
            self._run.commit_checkpoint(folder, snapshot.meta["step"], **metrics)
        except BaseException as failure:  # noqa: BLE001  raised again by whoever asks next
            self._failure = failure

    def _refuse_nan(self, snapshot: Snapshot) -> None:
        """Make no checkpoint of weights that are lost; a loss shows that a step later only."""
        name = find_nan(snapshot.weights) if self._run._ends_on_nan else None
        if name is not None:
            raise complain(f"the weights {name} hold NaN", snapshot.meta["step"])
