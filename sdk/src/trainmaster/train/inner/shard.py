"""Fully sharded parallelism (FSDP2, HSDP) of a module that knows nothing of it.

Each rank keeps a part of every parameter; a block's parameters are put together just before the
block computes, and its gradients divided just after. What is a block is found here.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainmaster.train.inner.plan import CannotSplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.device_mesh import DeviceMesh

# Smaller ones are put together with what is around them: a collective costs as much as this.
BLOCK_BYTES_MIN = 1 << 18


def shard_module(
    module: nn.Module,
    mesh: DeviceMesh,
    *,
    keeps_gathered: bool = False,
) -> list[nn.Parameter]:
    """Divide a module's parameters over a mesh, block by block; the module changes in place.

    Args:
        module: any; the members of its lists become blocks.
        mesh: of one dimension, or of two, where the outer one has copies.
        keeps_gathered: do not free a block's parameters between its two passes, which saves
            putting them together again for each of many microbatches.

    Returns:
        the parameters that were left whole, because they are single numbers: their gradients are
        not averaged.

    Raises:
        CannotSplit: a block has trainable parameters of several types.
    """
    for each in module.parameters():
        each.data = each.data.contiguous()  # torch refuses other layouts, such as channels last
    whole = [each for each in module.parameters() if each.ndim == 0]
    blocks = {name: block for name, block in _iter_blocks(module, "") if _is_alone(block, module)}
    taken: set[nn.Parameter] = set(whole)
    for name, block in [*blocks.items(), ("", module)]:
        own = {each: path for path, each in block.named_parameters() if each not in taken}
        _require_one_type(own, name)
        taken |= set(own)
    for block in blocks.values():
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=not keeps_gathered,
            ignored_params=set(whole),
        )
    # The root's are needed again at once when the backward pass begins, so they stay.
    fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=set(whole))
    return whole


def reshard(module: nn.Module) -> None:
    """Let go of parameters that a forward pass has put together and no backward pass followed."""
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()


def _iter_blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost members of lists that are worth a collective of their own."""
    is_list = isinstance(module, (nn.ModuleList, nn.Sequential))
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        has_forward = not isinstance(child, (nn.ModuleList, nn.ModuleDict))
        if is_list and has_forward and _is_block(child):
            yield path, child
        else:
            yield from _iter_blocks(child, f"{path}.")


def _is_block(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return sum(each.numel() * each.element_size() for each in parameters) >= BLOCK_BYTES_MIN


def _is_alone(block: nn.Module, module: nn.Module) -> bool:
    """Whether nothing outside of a block uses its parameters; tied ones are put together above."""
    inside, everywhere = _count_uses(block), _count_uses(module)
    return all(everywhere[each] == count for each, count in inside.items())


def _count_uses(module: nn.Module) -> collections.Counter[nn.Parameter]:
    modules = [each for _, each in module.named_modules(remove_duplicate=False)]
    return collections.Counter(p for each in modules for p in each.parameters(recurse=False))


def _require_one_type(own: dict[nn.Parameter, str], block: str) -> None:
    by_type = {each.dtype: path for each, path in own.items() if each.requires_grad}
    if len(by_type) > 1:
        names = ", ".join(f"{block}.{path}".strip(".") + f" ({t})" for t, path in by_type.items())
        raise CannotSplit(
            f"parallel.shard puts together parameters of one type, and these differ: {names}: "
            "make them one type, or leave parallel.shard at 1"
        )
