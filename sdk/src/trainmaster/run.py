"""A job's own view of itself: configuration, inputs, metrics, checkpoints, the wish to stop.

Works the same under the service, under `torchrun` and under plain `python`, for any framework.
Standard library only; imports and costs next to nothing. `trainmaster.train` builds on it.

    from trainmaster.run import current_run

    run = current_run(defaults={"lr": 0.1})
    for step in range(1, 101):
        ...
        run.log(step, loss=loss)
        if run.should_stop():
            break
"""

from __future__ import annotations

import json
import os
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster._checkpoint_folder import Checkpoint
from trainmaster._finite import complain, find_bad_loss
from trainmaster._interruption import Interruption
from trainmaster._job_errors import CheckpointNotCommitted, NonFiniteLoss, RunError
from trainmaster._spool import clean_step, clean_values
from trainmaster._standalone import Standalone
from trainmaster._supervised import Supervised
from trainmaster._wishes import Wishes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._pulse import Pulse
    from trainmaster._spool import Number

__all__ = [
    "Checkpoint",
    "CheckpointNotCommitted",
    "Config",
    "NonFiniteLoss",
    "Run",
    "RunError",
    "current_run",
]

DESCRIPTION_VERSION = 1
CHECKPOINT_METRICS_MAX = 256


class Config(dict[str, Any]):
    """The job's configuration; asking for what is not there says where to put it."""

    def __missing__(self, key: str) -> Any:
        """Raise a KeyError that helps."""
        raise KeyError(
            f"config has no {key!r}: put it into the job's config, "
            f"or give it a default with defaults={{{key!r}: ...}}"
        )


class Run:
    """This rank's part of a run. Use `current_run()` to get it.

    Attributes:
        config: the job's configuration, over the defaults that the script gave.
        inputs: path of each input by name.
        rank: number of this process among `world_size`; 0 where there is only one.
        local_rank: the same among the processes on this machine.
        description: everything the run was told about itself; empty off the service.
        places: the environment, which says where the other ranks are.
        is_supervised: whether the service runs it.
    """

    def __init__(self, description: Mapping[str, Any], places: Mapping[str, str]) -> None:
        self.description = description
        self.config = Config(description.get("config") or {})
        self.inputs = {name: Path(path) for name, path in (description.get("inputs") or {}).items()}
        self.places = places
        self.rank = int(places.get("RANK", "0"))
        self.world_size = int(places.get("WORLD_SIZE", "1"))
        self.local_rank = int(places.get("LOCAL_RANK", "0"))
        self.is_supervised = "socket" in description
        self._ends_on_nan = (description.get("health") or {}).get("on_nan") == "fail"
        self._wishes = Wishes()
        self._latest: Checkpoint | None = None
        keeper = Supervised if self.is_supervised else Standalone
        self._keeper: Supervised | Standalone = keeper(description, self.rank, self._wishes)
        self._interruption: Interruption | None = None
        plan = description.get("interruption")
        if self.is_supervised and plan:
            checkpoints = Path(description["checkpoints_dir"])
            self._interruption = Interruption(plan, checkpoints, self._wishes)

    def log(self, step: int, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Record metrics of one step; on disk when this returns, and never waits for the service.

        Args:
            step: integer >= 0.
            values: numbers by name, for names that are no Python words, such as "train/loss".
            more: numbers by name.

        Raises:
            TypeError: a value is no single number.
            ValueError: the step or a name cannot be recorded.
            NonFiniteLoss: one of them is a loss and NaN or infinite, and the job's
                `health.on_nan` is "fail". It is recorded all the same.
        """
        numbers = clean_values({**(values or {}), **more})
        number = clean_step(step)
        self._record(number, time.time(), numbers)
        if self._interruption is not None:
            self._interruption.reach(number)

    def progress(self, step: int, total_steps: int | None = None) -> None:
        """Say how far the training is; as often as you like, at most four a second are sent."""
        self._keeper.progress(step, total_steps)
        if self._interruption is not None:
            self._interruption.reach(step)

    def should_stop(self) -> bool:
        """Return whether somebody wants this run to save and end; cheap enough for every step."""
        self._keeper.refresh_wishes()
        return self._wishes.stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why the run should stop, such as "PauseRequested"; None while it should go on."""
        return self._wishes.stop_reason

    def checkpoint_requested(self) -> bool:
        """Return whether somebody asked for a checkpoint; True once for each request."""
        self._keeper.refresh_wishes()
        is_wanted, self._wishes.is_checkpoint_wanted = self._wishes.is_checkpoint_wanted, False
        return is_wanted

    def checkpoint_dir(self) -> Path:
        """Return a new empty folder to write a checkpoint into, for `commit_checkpoint`."""
        return self._keeper.checkpoint_dir()

    def commit_checkpoint(self, folder: str | Path, step: int, /, **metrics: Any) -> Checkpoint:
        """Make the files in a folder a checkpoint; it is safe on disk when this returns.

        Args:
            folder: from `checkpoint_dir()`, with regular files and folders in it; it is moved.
            step: the step it belongs to.
            metrics: numbers to list and rank it by; at most 256, more are left out.

        Returns:
            the checkpoint, with the path where its files lie now.

        Raises:
            CheckpointNotCommitted: nobody took it over in time, or it was refused.
            RunError: the folder is not one to commit.
        """
        number = clean_step(step)
        numbers = dict(islice(clean_values(metrics).items(), CHECKPOINT_METRICS_MAX))
        self._latest = self._keeper.commit(Path(folder), number, numbers)
        return self._latest

    def latest_checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint: this run's own, else the one to resume from, else None."""
        if self._latest is not None and self._latest.path.is_dir():
            return self._latest
        return self._keeper.resume

    def begin_anew(self) -> None:
        """Forget the checkpoint to resume from: what begins now is another training."""
        self._keeper.resume = None

    def _record(self, step: int, time_s: float, values: Mapping[str, Number]) -> None:
        """Record numbers that are known to be clean, taken at a given Unix time."""
        self._keeper.log(step, time_s, values)
        self._refuse_bad_loss(step, values)

    @property
    def _pulse(self) -> Pulse:
        """What this rank shows of itself."""
        return self._keeper.pulse

    def _refuse_bad_loss(self, step: int, values: Mapping[str, Number]) -> None:
        """End the run when a loss is NaN or infinite, where the job wants that."""
        name = find_bad_loss(values) if self._ends_on_nan else None
        if name is not None:
            raise complain(f"{name} is {values[name]}", step)


_current: Run | None = None


def current_run(defaults: Mapping[str, Any] | None = None) -> Run:
    """Return the run that this process belongs to; every call gives the same object.

    Under the service it is described by the file that TRAINMASTER_RUN names. Off the service
    that variable may name a file of your own, for example
    `{"config": {"lr": 0.1}, "inputs": {"data": "digits.npz"}, "resume": "trainmaster-runs/3"}`;
    without it the configuration is empty. Paths in it are relative to the file.

    Args:
        defaults: configuration for what the job leaves out.

    Raises:
        RunError: the file cannot be read or was written for a newer version.
    """
    global _current  # noqa: PLW0603  one process is one rank of one run
    if _current is None:
        places = os.environ  # the one place where a job reads its surroundings
        _current = Run(_read_description(places.get("TRAINMASTER_RUN")), places)
    for name, value in (defaults or {}).items():
        _current.config.setdefault(name, value)
    return _current


def _read_description(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        description = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read the run's description {path}: {error}") from error
    if not isinstance(description, dict):
        raise RunError(f"the run's description {path} is not a JSON object")
    if description.get("version", DESCRIPTION_VERSION) != DESCRIPTION_VERSION:
        raise RunError(
            f"{path} is of version {description['version']}, this trainmaster reads version "
            f"{DESCRIPTION_VERSION}: install a newer trainmaster in the job's environment"
        )
    if "socket" not in description:
        _resolve_paths(description, Path(path).resolve().parent)
    return description


def _resolve_paths(description: dict[str, Any], folder: Path) -> None:
    inputs = description.get("inputs") or {}
    description["inputs"] = {name: str(folder / value) for name, value in inputs.items()}
    if isinstance(description.get("resume"), str):
        description["resume"] = str(folder / description["resume"])
