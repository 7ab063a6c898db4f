"""Gradients across ranks: their mean where nothing else sees to it, and their norm.

Knows of parameters and meshes, not of models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from torch.distributed.device_mesh import DeviceMesh

BUCKET_BYTES = 25 << 20


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank has of a tensor; a view, so that writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def divided_dimensions(tensor: torch.Tensor) -> list[str]:
    """Return the mesh dimensions over which a tensor is divided, innermost first."""
    if not isinstance(tensor, DTensor):
        return []
    names = tensor.device_mesh.mesh_dim_names or ()
    places = zip(reversed(names), reversed(tensor.placements))
    return [name for name, placement in places if not placement.is_replicate()]


def align_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Divide gradients as their parameters are; torch leaves that of a divided embedding whole."""
    for each in parameters:
        if isinstance(each.grad, DTensor) and each.grad.placements != each.placements:
            each.grad = each.grad.redistribute(placements=each.placements)


def average_gradients(
    parameters: Iterable[torch.Tensor], groups: Sequence[dist.ProcessGroup]
) -> None:
    """Replace gradients by their mean over the ranks of some groups, one group after the other.

    A gradient that is a mean already stays the same, so doing it twice is no mistake. Ranks must
    have gradients for the same parameters.
    """
    gradients = [local_part(each.grad) for each in parameters if each.grad is not None]
    size = 1
    for group in groups:
        size *= dist.get_world_size(group)
    if size == 1:
        return
    for bucket in _fill_buckets(gradients):
        flat = torch.cat([each.reshape(-1) for each in bucket])
        for group in groups:
            dist.all_reduce(flat, group=group)
        flat /= size
        first = 0
        for each in bucket:
            each.copy_(flat[first : first + each.numel()].view_as(each))
            first += each.numel()


def clip_gradients(
    parameters: Iterable[torch.Tensor],
    max_norm: float,
    mesh: DeviceMesh | None,
    copies: Collection[torch.Tensor],
) -> torch.Tensor:
    """Scale gradients down together so that their norm over the whole model is at most a number.

    Args:
        parameters: those of this rank.
        max_norm: largest Euclidean norm of all gradients of the model as one vector.
        mesh: that of the layout, None where every rank has the whole model.
        copies: parameters that another stage has too, and counts.

    Returns:
        the norm before, the same on every rank, in double precision.
    """
    trained = [each for each in parameters if each.grad is not None]
    gradients = [local_part(each.grad) for each in trained]
    device = gradients[0].device if gradients else torch.device("cpu")
    counted_elsewhere = {id(each) for each in copies}
    squared = torch.zeros((), dtype=torch.float64, device=device)
    # A few kernels for all gradients: one by one they take longer than an optimizer's step.
    for number_of_holders, same in _by_holders(trained, mesh, counted_elsewhere).items():
        norms = torch._foreach_norm([gradients[number] for number in same])
        squared += torch.stack([norm.double() for norm in norms]).square().sum() / number_of_holders
    if mesh is not None:
        for dimension in _WITHIN_REPLICA:
            if mesh[dimension].size() > 1:
                dist.all_reduce(squared, group=mesh[dimension].get_group())
    total = squared.sqrt()
    factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)  # as torch's own does
    for dtype in {each.dtype for each in gradients}:
        torch._foreach_mul_([each for each in gradients if each.dtype == dtype], factor.to(dtype))
    return total


_WITHIN_REPLICA: tuple[str, ...] = ("tensor", "shard", "pipeline")


def _by_holders(
    parameters: Sequence[torch.Tensor], mesh: DeviceMesh | None, left_out: Collection[int]
) -> dict[int, list[int]]:
    """Return the numbers of parameters by how many ranks add the same gradient to the sum."""
    numbers: dict[int, list[int]] = {}
    for number, each in enumerate(parameters):
        if id(each) not in left_out:
            numbers.setdefault(_count_holders(each, mesh), []).append(number)
    return numbers


def _count_holders(parameter: torch.Tensor, mesh: DeviceMesh | None) -> int:
    """Return how many ranks of one stage of one replica add the same gradient to the sum."""
    if mesh is None:
        return 1
    divided = divided_dimensions(parameter)
    whole = [each for each in ("tensor", "shard") if each not in divided]
    return math.prod(mesh[each].size() for each in whole)


def _fill_buckets(gradients: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return gradients in groups of one type that are worth a collective each, in their order."""
    buckets: list[list[torch.Tensor]] = []
    open_by_type: dict[torch.dtype, list[torch.Tensor]] = {}
    for each in gradients:
        bucket = open_by_type.setdefault(each.dtype, [])
        if not bucket:
            buckets.append(bucket)
        bucket.append(each)
        if sum(one.numel() * one.element_size() for one in bucket) >= BUCKET_BYTES:
            del open_by_type[each.dtype]
    return buckets
