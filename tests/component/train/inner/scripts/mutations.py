"""Mistakes, one at a time, that a comparison with one process must catch."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch.distributed.pipelining import Schedule1F1B

from trainmaster.train.inner import gradients, group, microbatches, pipeline


def replace(module: Any, name: str, value: Any) -> None:
    """Put something else in a module's place."""
    setattr(module, name, value)


def nothing(*_arguments: Any, **_more: Any) -> None:
    """Do not send."""


def scatter_only(
    output: torch.Tensor, input: torch.Tensor, *_: Any, group: Any, **_more: Any
) -> None:
    """Take the own part of the own gradient."""
    parts = input.view(-1).chunk(dist.get_world_size(group))
    output.copy_(parts[dist.get_rank(group)].view_as(output))


def keep(tensor: torch.Tensor, *_: Any, **_more: Any) -> torch.Tensor:
    """Return the own part of a sum for the sum."""
    return tensor


def skip_reduce_scatter() -> None:
    for name in ("reduce_scatter_tensor", "reduce_scatter_single"):  # torch 2.13 has two names
        replace(dist, name, scatter_only)


def skip_all_reduce() -> None:
    plain = dist.all_reduce

    def reduce(tensor: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        return plain(tensor, *arguments, **more) if tensor.numel() == 1 else None

    replace(dist, "all_reduce", reduce)


def skip_tensor_reduce() -> None:
    replace(functional, "all_reduce", keep)


def skip_average() -> None:
    replace(group, "average_gradients", nothing)


def add_up() -> None:
    """Sums where means belong."""
    plain = microbatches.step_whole

    def step(model: Any, x: Any, y: Any, loss_fn: Any, pieces: int, weigh: Any) -> torch.Tensor:
        return plain(model, x, y, loss_fn, pieces, lambda loss: 2 * weigh(loss))

    replace(group, "step_whole", step)


def count_shares_alike() -> None:
    """However many samples a share has."""
    plain = microbatches.step_whole

    def step(model: Any, x: Any, y: Any, loss_fn: Any, pieces: int, weigh: Any) -> torch.Tensor:
        return plain(model, x, y, loss_fn, pieces, lambda loss: loss)

    replace(group, "step_whole", step)


def count_pieces_alike() -> None:
    """However many samples a microbatch has."""
    plain = microbatches.step_whole

    def step(model: Any, x: Any, y: Any, loss_fn: Any, pieces: int, weigh: Any) -> torch.Tensor:
        count = len(x)

        def loss_alike(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return loss_fn(output, targets) * count / (len(targets) * pieces)

        return plain(model, x, y, loss_alike, pieces, weigh)

    replace(group, "step_whole", step)


def average_twice() -> None:
    """A second time over gradients that are means: divided once more."""
    plain = gradients.average_gradients

    def average(parameters: Any, groups: Any) -> None:
        parameters = list(parameters)
        plain(parameters, groups)
        for each in parameters:
            each.grad /= dist.get_world_size(groups[0])

    replace(group, "average_gradients", average)


def keep_buffers_apart() -> None:
    plain = dist.broadcast

    def broadcast(tensor: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        return plain(tensor, *arguments, **more) if tensor.requires_grad else None

    replace(dist, "broadcast", broadcast)


def norm_of_own_part() -> None:
    """Each rank clips by what it sees."""
    replace(gradients, "_WITHIN_REPLICA", ())


def add_pieces() -> None:
    """The mean losses of microbatches, one on top of the other."""
    plain = pipeline._Batch.loss_of

    def loss_of(self: Any, output: torch.Tensor, number: int) -> torch.Tensor:
        first = min(self._count, number * self._rows)
        own = min(self._count, first + self._rows) - first
        return plain(self, output, number) * (self._count / max(1, own))

    replace(pipeline._Batch, "loss_of", loss_of)


def average_pieces() -> None:
    """What torch's schedules do if they are not told otherwise."""
    add_pieces()

    def schedule(*arguments: Any, **more: Any) -> Any:
        return Schedule1F1B(*arguments, **{**more, "scale_grads": True})

    replace(pipeline, "Schedule1F1B", schedule)


def keep_tied_apart() -> None:
    def exchange(_self: Any, own: torch.Tensor, _peer: int) -> torch.Tensor:
        return torch.zeros_like(own)

    replace(pipeline.Pipelined, "_exchange", exchange)


def always_synchronize() -> None:
    """In every microbatch, not in the last only."""
    plain = microbatches._synchronizing
    replace(microbatches, "_synchronizing", lambda model, is_last: plain(model, is_last=True))


MUTATIONS: dict[str, Callable[[], None]] = {
    "gradients of shards are not added": skip_reduce_scatter,
    "gradients of replicas are not added": skip_all_reduce,
    "parts of a layer's output are not added": skip_tensor_reduce,
    "gradients are not averaged": skip_average,
    "gradients are averaged twice": average_twice,
    "gradients are added, not averaged": add_up,
    "every share counts the same": count_shares_alike,
    "every microbatch counts the same": count_pieces_alike,
    "microbatches are added": add_pieces,
    "microbatches are averaged, however small": average_pieces,
    "tied parameters stay apart": keep_tied_apart,
    "every microbatch is synchronized": always_synchronize,
    "buffers are left as they are": keep_buffers_apart,
    "the norm is that of the own part": norm_of_own_part,
}


def apply(name: str | None) -> None:
    """Make one of them from now on."""
    if name is not None:
        MUTATIONS[name]()
