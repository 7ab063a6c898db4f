"""What a checkpoint of a training holds, and its files.

    <model>.safetensors   the weights, under the names of the bare module
    state.pt              optimizers, whatever else was kept, random generators, the data cursor
    meta.json             step, metrics, versions, world size, and facts the script added

A snapshot is taken while training stands still and written while it goes on: it shares no memory
with the model. Nothing here is read by unpickling anything but tensors and plain values.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from trainmaster._order import Cursor
from trainmaster.run import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
STATE = "state.pt"
META = "meta.json"


@dataclass
class Stateful:
    """Everything in a script that goes into its checkpoints, by name.

    Attributes:
        models: bare modules, without any wrapper.
        optimizers: theirs.
        kept: whatever else has a state.
        facts: JSON values, for whoever reads the checkpoint.
    """

    models: dict[str, torch.nn.Module] = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's state, on the CPU."""

    weights: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    meta: dict[str, Any]


def take_snapshot(
    things: Stateful,
    cursor: Cursor,
    randomness: list[dict[str, Any]],
    metrics: Mapping[str, float],
) -> Snapshot:
    """Copy the state of a training that stands still.

    Args:
        things: what to copy.
        cursor: how far the data is used up.
        randomness: of each rank.
        metrics: finite numbers by name.
    """
    weights, tied, extra = {}, {}, {}
    for name, module in things.models.items():
        weights[name], tied[name], extra[name] = _split_model(module)
    state = {
        "optimizers": {name: each.state_dict() for name, each in things.optimizers.items()},
        "kept": {name: each.state_dict() for name, each in things.kept.items()},
        "extra": extra,
        "randomness": randomness,
        "cursor": cursor.to_dict(),
    }
    meta = {
        "format": FORMAT,
        "step": cursor.step,
        "metrics": dict(metrics),
        "world_size": len(randomness),
        "models": sorted(weights),
        "tied": tied,
        "versions": {
            "trainmaster": _find_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "facts": dict(things.facts),
    }
    return Snapshot(weights, _copy(state), meta)


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

    def load_model(self, name: str, module: torch.nn.Module) -> None:
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
        tensors.update(self._state.get("extra", {}).get(name, {}))
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise RunError(
                f"the checkpoint of step {self.step} does not fit the model: {error}"
            ) from error

    def load_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer its state back, if there is one under its name."""
        if name in self._state.get("optimizers", {}):
            optimizer.load_state_dict(self._state["optimizers"][name])

    def load_kept(self, name: str, thing: Any) -> None:
        """Give anything else its state back, if there is one under its name."""
        if name in self._state.get("kept", {}):
            thing.load_state_dict(self._state["kept"][name])

    def find_randomness(self, rank: int, world_size: int) -> dict[str, Any] | None:
        """Return a rank's generators, or None: other ranks than now drew from those saved."""
        states: list[dict[str, Any]] = self._state.get("randomness", [])
        return states[rank] if len(states) == world_size else None


def _split_model(
    module: torch.nn.Module,
) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Any]]:
    """Return copies of a module's tensors, names that share one, and what is no tensor."""
    tensors: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    extra: dict[str, Any] = {}
    first_names: dict[tuple[Any, ...], str] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor) or name.endswith("_extra_state"):
            extra[name] = value
            continue
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() > 0 and place in first_names:
            tied[name] = first_names[place]
            continue
        first_names[place] = name
        tensors[name] = _copy(value).contiguous()
    return tensors, tied, extra


def _copy(value: Any) -> Any:
    """Return the same structure with every tensor in it copied to the CPU.

    Equal strings become one string: a pickle tells one that occurs twice from two that are equal,
    and equal states should make equal files.
    """
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {_copy(key): _copy(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_copy(each) for each in value)
    return value


def _load_state(path: Path, *, mmap: bool) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    return state


def _find_version() -> str:
    try:
        return importlib.metadata.version("trainmaster")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
