"""How replicas become one model: which mechanism a job asked for, and what each does.

One class per mode, with the same three duties: wrap a model, weigh a loss, and say what it needs
in a checkpoint. Here is synchronous data parallelism; a mode that is not is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster.train.replicas import Replicas


class UnsupportedMode(NotImplementedError):
    """The job asks for a parallelism or synchronization that this version cannot run."""


class Allreduce:
    """Every replica takes a share of each batch; gradients are averaged before each step.

    The result is that of one process on the whole batch, however unevenly it divides: torch
    averages over replicas, so each replica's loss is weighed by its number of samples.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._wrapped: list[DistributedDataParallel] = []

    def wrap(self, module: torch.nn.Module, *, find_unused_parameters: bool) -> torch.nn.Module:
        """Return the module with its gradients averaged over the replicas."""
        if self._replicas.size == 1:
            return module
        device = self._replicas.device
        wrapped = DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,
        )
        if not find_unused_parameters:
            _settle_buckets(wrapped)
        self._wrapped.append(wrapped)
        return wrapped

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss such that the average of gradients is that of all samples' mean loss.

        Args:
            loss: mean over this replica's samples.
            num_samples: how many those are; 0 where the replica computes on a borrowed sample.
            num_samples_all: samples of the whole batch.
        """
        if num_samples * self._replicas.size == num_samples_all:
            return loss  # the usual case, and then bit for bit what torch does alone
        return loss * (num_samples * self._replicas.size / num_samples_all)

    def close(self) -> None:
        """Let go of the process group; what was wrapped then computes on its own.

        A group that is still held when the interpreter ends can abort the process: its threads
        may be releasing tensors that Python knows, and find no Python (seen with torch 2.13 and
        gloo, in 1 of 12 runs).
        """
        for wrapped in self._wrapped:
            # The three that torch itself leaves out of a pickled copy.
            del wrapped.reducer, wrapped.logger, wrapped.process_group
            wrapped.forward = wrapped.module.forward
        self._wrapped.clear()


class _ZeroGradient(torch.autograd.Function):
    """Passes a number through, and gives a parameter a gradient of zeros in its own layout."""

    @staticmethod
    def forward(ctx: Any, total: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(parameter)
        return total.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, torch.zeros_like(ctx.saved_tensors[0])


class _Touch(torch.nn.Module):
    """Computes nothing from parameters, such that the last one gets its gradient first."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__()
        self._touched = parameters  # in a list, torch does not take them for this module's own

    def forward(self) -> torch.Tensor:
        total = torch.zeros((), device=self._touched[0].device)
        for parameter in self._touched:
            total = _ZeroGradient.apply(total, parameter)
        return total


def _settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Let torch lay out its gradient buckets now, in an order that depends on the model alone.

    It does so once, in the order in which the first backward pass yields gradients. The place of
    a number in its bucket decides in which order three or more ranks add it up, so a resumed run,
    whose first pass comes later, would differ from an uninterrupted one in the last bits.
    """
    module = wrapped.module
    parameters = [each for each in module.parameters() if each.requires_grad]
    wrapped.module = _Touch(parameters)
    try:
        wrapped().backward()
    finally:
        wrapped.module = module
    for parameter in parameters:
        parameter.grad = None


def choose_synchronization(description: Mapping[str, Any], replicas: Replicas) -> Allreduce:
    """Return the mechanism that a run's description asks for.

    Raises:
        UnsupportedMode: none of ours is that.
    """
    parallel = description.get("parallel") or {}
    split = [name for name, count in parallel.items() if name != "data" and (count or 1) != 1]
    if split:
        raise UnsupportedMode(
            f"parallel.{split[0]} = {parallel[split[0]]}: trainmaster.train runs data parallel "
            "jobs only; leave `parallel` out, or bring a script that splits the model itself"
        )
    sync = description.get("sync") or {}
    mode, compression = sync.get("mode", "allreduce"), sync.get("compression") or "none"
    if mode != "allreduce" or compression != "none":
        raise UnsupportedMode(
            f"sync.mode = {mode} with compression = {compression}: trainmaster.train has "
            "mode allreduce without compression; leave `sync` out"
        )
    return Allreduce(replicas)
