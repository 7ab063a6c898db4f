"""A module that is spread over ranks: what its tensors are called, and which part is whose.

Sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from trainmaster.train.inner.shard import reshard

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from torch import nn


class StateMismatch(RuntimeError):
    """A state is not that of this model or optimizer; the message names what differs."""


@dataclass
class Spread:
    """A module that is spread over ranks.

    Attributes:
        module: the bare one; what other stages have is on torch's device "meta".
        tied: the first name of a parameter by each other name of it.
        owners: the pipeline rank that has each tensor, by first name; empty without a pipeline.
        stages: this rank's, which are what is sharded in a pipeline.
    """

    module: nn.Module
    tied: dict[str, str] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    stages: Sequence[nn.Module] = ()

    def reshard(self) -> None:
        """Let go of what a forward pass has put together and no backward pass followed."""
        for each in self.stages or [self.module]:
            reshard(each)


def take_part(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the part of a whole tensor that this rank has of another one of the same shape.

    Layers are divided first, and then sharded: so from the innermost dimension of the mesh out,
    each part into equal parts of which the last may be smaller or empty, as torch.chunk does.
    """
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    for number in reversed(range(mesh.ndim)):
        placement = like.placements[number]
        if placement.is_replicate():
            continue
        size = full.shape[placement.dim]
        length = -(-size // mesh.size(number))
        first = min(size, mesh.get_local_rank(number) * length)
        full = full.narrow(placement.dim, first, min(length, size - first))
    return full


def require_same_names(spread: Spread, have: Collection[str], given: Collection[str]) -> None:
    """See that a state has what a module has, under any of the names of each.

    Raises:
        StateMismatch: something is missing or left over.
    """
    known = {spread.tied.get(name, name) for name in given}
    wanted = {spread.tied.get(name, name) for name in have}
    missing, unknown = sorted(wanted - known), sorted(known - wanted)
    if missing or unknown:
        raise StateMismatch(
            f"the state does not fit the model: missing {missing}, unknown {unknown}"
        )


def names_of(spread: Spread) -> list[str]:
    """Return the first names of a module's parameters, of all stages, in order."""
    return [
        name
        for name, _ in spread.module.named_parameters(remove_duplicate=False)
        if name not in spread.tied
    ]


def find_tied(module: nn.Module) -> dict[str, str]:
    """Return the first name of a tensor by each other name of it."""
    firsts: dict[int, str] = {}
    tied: dict[str, str] = {}
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, value in tensors:
        first = firsts.setdefault(id(value), name)
        if first != name:
            tied[name] = first
    return tied


def restore(value: Any, parameter: torch.Tensor) -> Any:
    """Return this rank's part of a parameter's state; what has another shape is everybody's."""
    is_divided = isinstance(parameter, DTensor)
    if not isinstance(value, torch.Tensor) or not is_divided or value.shape != parameter.shape:
        return value
    part = take_part(value, parameter).to(parameter.device, copy=True)
    return DTensor.from_local(
        part.contiguous(),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def name_parameters(
    spreads: Mapping[str, Spread], optimizer: torch.optim.Optimizer
) -> dict[int, str]:
    """Return the name of each of an optimizer's parameters, by its number there."""
    known: dict[int, str] = {}
    for model, spread in spreads.items():
        spread.reshard()
        for name, parameter in _iter_named(spread):
            known.setdefault(id(parameter), f"{model}.{name}")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    return {
        index: known.get(id(each), f"parameter {index}") for index, each in enumerate(parameters)
    }


def _iter_named(spread: Spread) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in spread.module.named_parameters(remove_duplicate=False):
        yield spread.tied.get(name, name), parameter
