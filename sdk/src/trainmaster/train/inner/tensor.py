"""Tensor parallelism: the layers that a plan names, divided among ranks by torch's own styles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from trainmaster.train.inner.plan import CannotSplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.parallel import ParallelStyle

    from trainmaster.train.inner.plan import Split


def divide_layers(module: nn.Module, splits: Mapping[str, Split], mesh: DeviceMesh) -> None:
    """Divide layers over a mesh of one dimension; the module changes in place.

    Args:
        module: whose layers.
        splits: how each layer is divided, by full name; layers that are elsewhere are left out.
        mesh: the ranks that they are divided among.
    """
    tied = _find_tied(module)
    for name, split in splits.items():
        layer = module.get_submodule(name)
        if not layer.weight.is_meta:
            parallelize_module(layer, mesh, _choose_style(layer, split))
    for first, *others in tied:
        owner, attribute = first
        for other, name in others:  # dividing each has made two of one
            setattr(other, name, getattr(owner, attribute))


def step_one_by_one(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Keep an optimizer from updating divided and whole parameters of a group in one call.

    torch does that by default on a GPU, where it is faster, and refuses when it meets both.
    """
    for group in optimizer.param_groups:
        if len({isinstance(each, DTensor) for each in group["params"]}) > 1:
            group.update({name: False for name in ("foreach", "fused") if name in group})


def require_same_split(splits: Mapping[str, Split], tied: Mapping[str, str]) -> None:
    """See that a parameter with two names is divided the same way under both.

    Args:
        splits: how each layer is divided, by full name.
        tied: the first name of a parameter by each other one.

    Raises:
        CannotSplit: one that is not.
    """
    for alias, first in tied.items():
        ways = [splits.get(name.rpartition(".")[0]) for name in (first, alias)]
        kinds = {None if way is None else ("rows" if way == "row" else "columns") for way in ways}
        if len(kinds) > 1:
            raise CannotSplit(
                f"{first} and {alias} are one parameter, and the plan divides the first by "
                f"{ways[0] or 'nothing'} and the second by {ways[1] or 'nothing'}: "
                "divide both by vocab, or neither"
            )


def _choose_style(layer: nn.Module, split: Split) -> ParallelStyle:
    if split == "column":
        return ColwiseParallel()
    if split == "row":
        return RowwiseParallel()
    if isinstance(layer, nn.Embedding):
        return RowwiseParallel(input_layouts=Replicate())
    return ColwiseParallel(output_layouts=Replicate())


def _find_tied(module: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Return the places of each parameter that has several."""
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for each in module.modules():
        for name, parameter in each.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(parameter, []).append((each, name))
    return [each for each in places.values() if len(each) > 1]
