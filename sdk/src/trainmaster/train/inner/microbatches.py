"""A batch in pieces, and a step on a whole model that takes it piece by piece."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule

from trainmaster._order import share_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


def count_samples(batch: Any) -> int:
    """Return how many samples a batch has: the rows of the first tensor in it.

    Raises:
        TypeError: there is none.
    """
    if isinstance(batch, torch.Tensor) and batch.ndim > 0:
        return len(batch)
    values = batch.values() if isinstance(batch, dict) else batch
    if isinstance(batch, (dict, tuple, list)):
        for value in values:
            with contextlib.suppress(TypeError):
                return count_samples(value)
    raise TypeError(f"a batch is made of tensors with a row per sample, not {type(batch).__name__}")


def take_rows(batch: Any, first: int, stop: int) -> Any:
    """Return the same structure with some rows of every tensor in it."""
    if isinstance(batch, torch.Tensor):
        return batch[first:stop] if batch.ndim > 0 else batch
    if isinstance(batch, dict):
        return {name: take_rows(value, first, stop) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(take_rows(value, first, stop) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(take_rows(value, first, stop) for value in batch)
    return batch


def step_whole(
    model: nn.Module,
    x: Any,
    y: Any,
    loss_fn: Callable[[Any, Any], torch.Tensor],
    microbatches: int,
    weigh: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Compute the gradients of a batch's mean loss, in pieces, synchronized once.

    Every rank goes through as many pieces, whatever it has: one that has none left computes on
    its first sample, for nothing.

    Args:
        model: what to call; its replicas synchronize in the last piece only.
        x: what it is called with.
        y: what else the loss needs.
        loss_fn: mean over the samples it is given.
        microbatches: number of pieces.
        weigh: turns the batch's mean loss into what gradients are taken of; linear.

    Returns:
        the mean loss, detached.
    """
    count = count_samples(x)
    total: torch.Tensor | None = None
    for number in range(microbatches):
        piece = share_of(count, number, microbatches)
        first, stop = (piece.start, piece.stop) if len(piece) else (0, 1)
        with _synchronizing(model, is_last=number == microbatches - 1):
            loss = loss_fn(model(take_rows(x, first, stop)), take_rows(y, first, stop))
            if len(piece) != count:  # else bit for bit what one process does
                loss = loss * (len(piece) / count)
            weigh(loss).backward()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


@contextlib.contextmanager
def _synchronizing(model: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Let replicas exchange gradients in the passes inside, or keep them to add up."""
    if isinstance(model, FSDPModule):
        model.set_is_last_backward(is_last)
        model.set_requires_gradient_sync(is_last)
        yield
        return
    no_sync = getattr(model, "no_sync", None)
    with contextlib.nullcontext() if is_last or no_sync is None else no_sync():
        yield
