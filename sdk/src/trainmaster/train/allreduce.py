"""Synchronous data parallelism: gradients are averaged over all replicas before each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from trainmaster._layout import Layout
from trainmaster.train.replica import form_replica
from trainmaster.train.synchronization import Synchronization
from trainmaster.train.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainmaster.run import Run


class Allreduce(Synchronization):
    """Every replica takes a share of each batch; gradients are averaged before each step.

    The result is that of one process on the whole batch, however unevenly it divides: torch
    averages over replicas, so each replica's loss is weighed by its number of samples.
    """

    COMPRESSIONS: ClassVar[Mapping[str, torch.dtype | None]] = {
        "none": None,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }

    def __init__(self, run: Run, device: str | None, compression: str = "none") -> None:
        self._world = World(run, device)
        self.rank, self.size = self._world.rank, self._world.size
        self.device = self._world.device
        self.layout = Layout.from_description(run.description.get("parallel"), self.size)
        self.share = (self.layout.share(self.rank), self.layout.shares)
        self._inner = form_replica(self.layout, self.rank, self.device)
        self._dtype = self.COMPRESSIONS[compression]
        self._wrapped: list[DistributedDataParallel] = []

    def wrap(
        self,
        name: str,
        module: torch.nn.Module,
        callable_: torch.nn.Module,
        *,
        find_unused_parameters: bool,
    ) -> torch.nn.Module:
        """Return the module with its gradients averaged over the replicas.

        The ranks of one that is spread see to it themselves.
        """
        if self.size == 1 or self.layout.is_split:
            return callable_
        wrapped = DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,
        )
        if self._dtype is not None:
            wrapped.register_comm_hook(self.size, _average_as(self._dtype))
        if not find_unused_parameters:
            _settle_buckets(wrapped)
        self._wrapped.append(wrapped)
        return wrapped

    @property
    def settles_parameters(self) -> bool:
        """DDP looks once for what is trained; the ranks of a split model look at every step."""
        return self.size > 1 and not self.layout.is_split

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all ranks."""
        return self._world.maximum(values)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the shares, on the rank's device."""
        is_counted = self.layout.is_share_head(self.rank)
        return self._world.sum(values if is_counted else torch.zeros_like(values))

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Return everybody's state on rank 0, in the order of ranks; None elsewhere."""
        return self._world.gather(state)

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
        self._world.close()


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


def _average_as(dtype: torch.dtype) -> Callable[..., Any]:
    """Return a hook that averages a bucket of gradients in a shorter type.

    torch's own for bfloat16 refuses gloo, although its all-reduce adds up in that type there too.
    """
    # Without annotations: torch compares them with its classes, and here they are strings.
    return lambda size, bucket: _average(dtype, size, bucket.buffer())


def _average(
    dtype: torch.dtype, size: int, gradients: torch.Tensor
) -> torch.futures.Future[torch.Tensor]:
    # Divided first: a sum of many gradients may not fit into 16 bits.
    short = (gradients / size).to(dtype)
    future = dist.all_reduce(short, async_op=True).get_future()
    return future.then(lambda done: gradients.copy_(done.value()[0]))


def _settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Let torch lay out its gradient buckets now, in an order that depends on the model alone.

    It does so once, in the order in which the first backward pass yields gradients. The place of
    a number in its bucket decides in which order three or more ranks add it up, so a resumed run,
    whose first pass comes later, would differ from an uninterrupted one in the last bits.
    """
    module = wrapped.module
    parameters = [each for each in module.parameters() if each.requires_grad]
    broadcasts, wrapped.broadcast_buffers = wrapped.broadcast_buffers, False  # it has none
    wrapped.module = _Touch(parameters)
    try:
        wrapped().backward()
    finally:
        wrapped.module, wrapped.broadcast_buffers = module, broadcasts
    for parameter in parameters:
        parameter.grad = None
