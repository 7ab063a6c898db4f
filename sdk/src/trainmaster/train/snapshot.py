"""What a checkpoint of a training holds, and its files.

    <model>.safetensors   the weights, under the names of the bare module
    state.pt              optimizers by the names of parameters, whatever else was kept, the data
                          cursor, and of each rank its random generators and synchronization
    meta.json             step, metrics, versions, layout, and facts the script added

It is whole, whatever the layout, and so loads into any other. It is taken while training stands
still and written while it goes on: it shares no memory with the model. Nothing here is read by
unpickling anything but tensors and plain values.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from trainmaster._layout import Layout
from trainmaster._order import Cursor
from trainmaster.run import RunError
from trainmaster.train.inner import StateMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainmaster.train.inner.full_state import Weights
    from trainmaster.train.stateful import Stateful
    from trainmaster.train.synchronization import Synchronization

FORMAT = 2
STATE = "state.pt"
META = "meta.json"


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's state, on the CPU."""

    weights: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Gathered:
    """The parts of a training's state that ranks may have divided, in whole.

    Attributes:
        weights: by model, its tensors, other names of them, and what is no tensor.
        optimizers: by optimizer, its state by the names of parameters.
    """

    weights: dict[str, Weights]
    optimizers: dict[str, dict[str, Any]]


def gather_state(things: Stateful, synchronization: Synchronization) -> Gathered | None:
    """Copy the divided state of a training that stands still to rank 0; None elsewhere.

    Every rank must call it.
    """
    weights = {name: synchronization.gather_weights(each) for name, each in things.models.items()}
    optimizers = {
        name: synchronization.gather_optimizer(things.models, each)
        for name, each in things.optimizers.items()
    }
    if synchronization.rank != 0:
        return None
    return Gathered(
        {name: each for name, each in weights.items() if each is not None},
        {name: each for name, each in optimizers.items() if each is not None},
    )


def take_snapshot(
    things: Stateful,
    gathered: Gathered,
    layout: Layout,
    cursor: Cursor,
    ranks: Sequence[dict[str, Any] | None],
    metrics: Mapping[str, float],
) -> Snapshot:
    """Put together the state of a training that stands still.

    Args:
        things: what else to copy.
        gathered: what the ranks have divided.
        layout: how they do.
        cursor: how far the data is used up.
        ranks: what each rank has for itself; None for one that is missing.
        metrics: finite numbers by name.
    """
    state = {
        "optimizers": _intern(gathered.optimizers),
        "kept": {name: _copy(each.state_dict()) for name, each in things.kept.items()},
        "extra": {name: _copy(extra) for name, (_, _, extra) in gathered.weights.items()},
        "ranks": _intern(ranks),
        "cursor": _intern(cursor.to_dict()),
    }
    meta = {
        "format": FORMAT,
        "step": cursor.step,
        "metrics": dict(metrics),
        "world_size": layout.size,
        "parallel": layout.counts(),
        "models": sorted(gathered.weights),
        "tied": {name: tied for name, (_, tied, _) in gathered.weights.items()},
        "versions": {
            "trainmaster": _find_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "facts": dict(things.facts),
    }
    weights = {name: tensors for name, (tensors, _, _) in gathered.weights.items()}
    return Snapshot(weights, state, meta)


def write_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write the files of a checkpoint.

    Raises:
        RunError: something that was kept has a state that could not be read back safely.
    """
    for name, tensors in snapshot.weights.items():
        # One entry only: the order of several is not the same from one process to the next.
        save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
    torch.save(snapshot.state, folder / STATE)
    try:
        _load_state(folder / STATE, mmap=True)  # reads the structure, not the tensors
    except Exception as error:
        raise RunError(
            "a state_dict() holds more than tensors and plain values, so it could not be read "
            f"back safely: {error}"
        ) from error
    (folder / META).write_text(json.dumps(snapshot.meta, indent=1), encoding="utf-8")


class Resumed:
    """The checkpoint that a training goes on from.

    Attributes:
        cursor: where the data goes on; at the beginning if only weights were found.
        step: the step it was taken at.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.step = step
        self._folder = folder
        self._meta: dict[str, Any] = {}
        self._state: dict[str, Any] = {}
        self.cursor = Cursor()
        if (folder / STATE).is_file():
            self._meta = json.loads((folder / META).read_text(encoding="utf-8"))
            if self._meta["format"] != FORMAT:
                raise RunError(
                    f"the checkpoint in {folder} has format {self._meta['format']}, this "
                    f"trainmaster reads {FORMAT}: install the version that wrote it"
                )
            self._state = _load_state(folder / STATE, mmap=False)
            self.cursor = Cursor.from_dict(self._state["cursor"])

    def load_model(
        self, name: str, module: torch.nn.Module, synchronization: Synchronization
    ) -> None:
        """Give a bare module the weights that were saved under its name.

        Raises:
            RunError: there are none, or they do not fit.
        """
        path = self._folder / f"{name}.safetensors"
        if not path.is_file():
            raise RunError(
                f"the checkpoint of step {self.step} has no {path.name}: give the model the name "
                "it was saved under, or start from another checkpoint"
            )
        tensors = dict(load_file(path))
        for alias, original in self._meta.get("tied", {}).get(name, {}).items():
            tensors[alias] = tensors[original]
        extra = self._state.get("extra", {}).get(name, {})
        try:
            synchronization.load_weights(module, tensors, extra)
        except (RuntimeError, StateMismatch) as error:
            raise RunError(
                f"the checkpoint of step {self.step} does not fit the model: {error}"
            ) from error

    def load_optimizer(
        self,
        name: str,
        models: Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer,
        synchronization: Synchronization,
    ) -> None:
        """Give an optimizer its state back, if there is one under its name.

        Raises:
            RunError: it is that of another optimizer.
        """
        if name not in self._state.get("optimizers", {}):
            return
        state = self._state["optimizers"][name]
        try:
            synchronization.load_optimizer(name, models, optimizer, state)
        except StateMismatch as error:
            raise RunError(
                f"the checkpoint of step {self.step} does not fit {name}: {error}"
            ) from error

    def load_kept(self, name: str, thing: Any) -> None:
        """Give anything else its state back, if there is one under its name."""
        if name in self._state.get("kept", {}):
            thing.load_state_dict(self._state["kept"][name])

    @property
    def synchronization(self) -> list[dict[str, Any] | None]:
        """What each rank had for its way of joining the others; None for one that was missing."""
        return [each and each["synchronization"] for each in self._state.get("ranks", [])]

    @property
    def layout(self) -> Layout:
        """How the ranks stood."""
        return Layout(**self._meta["parallel"])

    def find_randomness(self, rank: int, layout: Layout) -> dict[str, Any] | None:
        """Return a rank's generators; None where others drew from them or it was missing."""
        ranks: list[dict[str, Any] | None] = self._state.get("ranks", [])
        if self._meta.get("parallel") != layout.counts() or len(ranks) != layout.size:
            return None
        found = ranks[rank]
        return None if found is None else found["randomness"]


def _copy(value: Any) -> Any:
    """Return the same structure with every tensor in it copied to the CPU.

    Equal strings become one: a pickle tells one that occurs twice from two that are equal,
    and equal states should make equal files.
    """
    return _rebuild(value, lambda tensor: tensor.detach().to("cpu", copy=True))


def _intern(value: Any) -> Any:
    """Return the same structure with the same tensors, and equal strings as one."""
    return _rebuild(value, lambda tensor: tensor)


def _rebuild(value: Any, take: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, torch.Tensor):
        return take(value)
    if isinstance(value, dict):
        return {_rebuild(key, take): _rebuild(each, take) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_rebuild(each, take) for each in value)
    return value


def _load_state(path: Path, *, mmap: bool) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    return state


def _find_version() -> str:
    try:
        return importlib.metadata.version("trainmaster")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
