"""A model in stages, one rank after the other: batches go through in microbatches.

torch's schedules run it: one forward, one backward (1F1B), interleaved where a rank has several
stages. Here are the microbatches, such that the result is the mean over the whole batch.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from trainmaster.train.inner.gradients import align_gradients, local_part
from trainmaster.train.inner.microbatches import count_samples, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trainmaster.train.inner.stages import Cut, Shared


class Pipelined(nn.Module):
    """What a script calls in place of a model that is cut into stages.

    Its parameters are those of this rank's stages, under the bare module's names. Called without
    gradients it returns the whole model's output, on every rank; it is trained by
    `forward_backward` only.
    """

    def __init__(
        self,
        module: nn.Module,
        cut: Cut,
        group: dist.ProcessGroup,
        device: torch.device,
        shared: Sequence[Shared],
    ) -> None:
        """Join what `cut_module` has made.

        Args:
            module: the bare one.
            cut: how it is cut.
            group: the pipeline's ranks.
            device: this rank's.
            shared: parameters that two ranks have.
        """
        super().__init__()
        self.module = module
        self._cut = cut
        self._group = group
        self._device = device
        self._ranks = dist.get_world_size(group)
        self._rank = dist.get_rank(group)
        self._shared = shared
        self._schedules: dict[Any, Any] = {}
        self._rows = 0
        self._batch: _Batch | None = None

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield those of this rank's stages, by the bare module's names."""
        for name, each in self.module.named_parameters(prefix, recurse, remove_duplicate):
            if not each.is_meta:
                yield name, each

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield those of this rank's stages, by the bare module's names."""
        for name, each in self.module.named_buffers(prefix, recurse, remove_duplicate):
            if not each.is_meta:
                yield name, each

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the whole model's output, on every rank; for evaluation.

        Args:
            x: the same on every rank of the pipeline.
        """
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a model in pipeline stages is trained by run.forward_backward(model, x, y, "
                "loss_fn); to evaluate it, call it under torch.no_grad()"
            )
        shapes = self._cut.outline.boundaries(x)
        value = x
        for number, shape in enumerate(shapes[1:]):
            owner, reader = number % self._ranks, (number + 1) % self._ranks
            if number in self._cut.stages:
                value = self._cut.stages[number](value)
                if number + 1 < len(self._cut.names):
                    dist.send(value.contiguous(), self._global(reader), group=self._group)
            elif self._rank == reader and number + 1 < len(self._cut.names):
                value = torch.empty(shape.shape, dtype=shape.dtype, device=self._device)
                dist.recv(value, self._global(owner), group=self._group)
        return self._from_last(value, shapes[-1])

    def forward_backward(
        self,
        x: torch.Tensor,
        y: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        microbatches: int | None,
        weigh: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Compute the gradients of a batch's mean loss.

        Args:
            x: inputs, a row per sample; the same on every rank of the pipeline.
            y: what else the loss needs.
            loss_fn: mean over the samples it is given.
            microbatches: at least so many pieces; more where the schedule needs them.
            weigh: turns the mean loss into what gradients are taken of; linear.

        Returns:
            the mean loss, detached, in double precision, on every rank.
        """
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"a pipeline takes one tensor, not a {type(x).__name__}")
        pieces = self._count_pieces(microbatches)
        self._rows = max(self._rows, -(-len(x) // pieces))  # one shape for all steps, if it can be
        self._batch = _Batch(y, count_samples(x), self._rows, loss_fn, weigh)
        padded = torch.cat([x, x[:1].expand(pieces * self._rows - len(x), *x.shape[1:])])
        schedule = self._find_schedule(pieces, padded[: self._rows])
        with self._adding_shared():
            if self._rank == 0:
                schedule.step(padded, return_outputs=False)
            else:
                # Which piece it is, not what: the loss looks it up, so `y` may be any structure.
                numbers = torch.arange(pieces) if self._rank == self._ranks - 1 else None
                schedule.step(target=numbers, return_outputs=False)
        loss = self._batch.mean_loss(self._device)
        self._batch = None
        return self._from_last(loss, torch.empty((), dtype=torch.float64, device="meta"))

    def _count_pieces(self, wanted: int | None) -> int:
        stages = len(self._cut.names)
        if stages == self._ranks:
            return max(wanted or 2 * stages, stages)
        # The interleaved schedule goes in rounds of one piece for each rank.
        return -(-max(wanted or 2 * stages, stages) // self._ranks) * self._ranks

    def _find_schedule(self, pieces: int, piece: torch.Tensor) -> Any:
        shapes = self._cut.outline.boundaries(piece)
        key = (pieces, *((each.shape, each.dtype) for each in shapes))
        if key not in self._schedules:
            stages = [
                PipelineStage(
                    stage,
                    number,
                    len(self._cut.names),
                    self._device,
                    input_args=shapes[number],
                    output_args=shapes[number + 1],
                    group=self._group,
                )
                for number, stage in self._cut.stages.items()
            ]
            if len(stages) > 1:
                schedule = ScheduleInterleaved1F1B(
                    stages, pieces, loss_fn=self._loss_of, scale_grads=False
                )
            else:
                schedule = Schedule1F1B(stages[0], pieces, loss_fn=self._loss_of, scale_grads=False)
            self._schedules = {key: schedule}  # the buffers of one are enough
        return self._schedules[key]

    def _loss_of(self, output: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        return self._batch.loss_of(output, int(number))

    @contextlib.contextmanager
    def _adding_shared(self) -> Iterator[None]:
        """Give a parameter that two ranks have the sum of the gradients that both compute inside.

        What it had before is that sum already, from earlier batches, and is added on top.
        """
        before = [each.parameter.grad for each in self._shared]
        for each in self._shared:
            each.parameter.grad = None
        yield
        for each, earlier in zip(self._shared, before):
            parameter = each.parameter
            if parameter.grad is not None:
                align_gradients([parameter])
                own = local_part(parameter.grad)
                own += self._exchange(own, each.peer)
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else parameter.grad + earlier

    def _exchange(self, own: torch.Tensor, peer: int) -> torch.Tensor:
        other = torch.empty_like(own)
        operations = [
            dist.P2POp(dist.isend, own, self._global(peer), self._group),
            dist.P2POp(dist.irecv, other, self._global(peer), self._group),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        return other

    def _from_last(self, value: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        """Return on every rank what the last stage has."""
        last = self._ranks - 1
        if self._rank != last:
            value = torch.empty(shape.shape, dtype=shape.dtype, device=self._device)
        dist.broadcast(value.contiguous(), self._global(last), group=self._group)
        return value

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self._group, rank)


class _Batch:
    """One batch on its way through: the loss of each piece, weighed by its samples.

    The last pieces may be filled up with a sample that does not count, for all are of one shape.
    """

    def __init__(
        self,
        y: Any,
        count: int,
        rows: int,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        weigh: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._y, self._count, self._rows = y, count, rows
        self._loss_fn, self._weigh = loss_fn, weigh
        self._losses: dict[int, torch.Tensor] = {}

    def loss_of(self, output: torch.Tensor, number: int) -> torch.Tensor:
        """Return a piece's part of what gradients are taken of."""
        first = min(self._count, number * self._rows)
        stop = min(self._count, first + self._rows)
        output = output[: stop - first]
        if first == stop:
            return self._weigh(output.sum())  # of nothing: zero, with gradients of zero
        loss = self._loss_fn(output, take_rows(self._y, first, stop))
        loss = loss * ((stop - first) / self._count)
        self._losses[number] = loss.detach()
        return self._weigh(loss)

    def mean_loss(self, device: torch.device) -> torch.Tensor:
        """Return the batch's mean loss where the last stage is."""
        total = torch.zeros((), dtype=torch.float64, device=device)
        for number in sorted(self._losses):
            total += self._losses[number]
        return total
