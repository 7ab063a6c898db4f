"""The inner group: the ranks that are one model together, in every step.

Joins sharding, tensor and pipeline parallelism on one mesh; each has a module of its own. Knows
nothing of data, checkpoints' files or the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainmaster._layout import DIMENSIONS
from trainmaster.train.inner.buffers import BufferSync
from trainmaster.train.inner.full_state import FullState
from trainmaster.train.inner.gradients import align_gradients, average_gradients, clip_gradients
from trainmaster.train.inner.microbatches import step_whole
from trainmaster.train.inner.pipeline import Pipelined
from trainmaster.train.inner.plan import find_links, find_plan, match_layers
from trainmaster.train.inner.shard import shard_module
from trainmaster.train.inner.spread import Spread, find_tied
from trainmaster.train.inner.stages import cut_module, find_shared
from trainmaster.train.inner.tensor import divide_layers, require_same_split, step_one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from trainmaster._layout import Layout
    from trainmaster.train.inner.full_state import Weights
    from trainmaster.train.inner.plan import Plan


class InnerGroup:
    """This rank's part in a layout whose replicas are more than one rank.

    Attributes:
        layout: that of the torch world.
        mesh: one dimension for each of the layout's, by its name.
    """

    def __init__(self, layout: Layout, rank: int, device: torch.device) -> None:
        """Make the groups; the torch world is there already, and every rank calls this."""
        self.layout = layout
        self.mesh: DeviceMesh = init_device_mesh(
            device.type, tuple(layout.counts().values()), mesh_dim_names=DIMENSIONS
        )
        if layout.tensor > 1:
            register_optimizer_step_pre_hook(step_one_by_one)
        self._device = device
        self._place = layout.place(rank)
        self._state = FullState(layout, rank)
        self._spreads: dict[int, Spread] = {}
        self._copies: list[nn.Parameter] = []
        self._averaged: list[tuple[list[nn.Parameter], list[dist.ProcessGroup]]] = []

    def wrap(self, module: nn.Module, plan: Plan | None = None) -> nn.Module:
        """Divide a module that every rank has in whole; rank 0's weights count.

        Args:
            module: on this rank's device; it changes in place.
            plan: how it may be divided; its own `train_plan` by default.

        Returns:
            what to call, and whose parameters to train.

        Raises:
            CannotSplit: it does not divide as the layout says.
        """
        own = find_plan(module, plan)
        tied = find_tied(module)
        splits, links = {}, {}
        if self.layout.tensor > 1:
            splits = match_layers(module, own, self.layout.tensor)
            require_same_split(splits, tied)
        if self.layout.pipeline > 1:
            links = find_links(module, own, self.layout.pipeline * own.stages_per_rank)
        _agree_on(module)
        cut = None
        if links:
            ranks, rank = self.layout.pipeline, self._place.pipeline
            cut = cut_module(module, links, ranks, rank, own.stages_per_rank)
        if splits:
            divide_layers(module, splits, self.mesh["tensor"])
        stages = list(cut.stages.values()) if cut else []
        for part in stages or [module]:
            self._share_out(part)
        self._spreads[id(module)] = Spread(module, tied, cut.owners if cut else {}, stages)
        if cut is None:
            return module
        shared = find_shared(module, cut.owners, tied, self._place.pipeline)
        self._copies += [each.parameter for each in shared if each.is_copy]
        group = self.mesh["pipeline"].get_group()
        return Pipelined(module, cut, group, self._device, shared)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients of a loss, averaged over the shares of the batch."""
        loss.backward()
        self._settle()

    def forward_backward(
        self,
        model: nn.Module,
        x: Any,
        y: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        *,
        microbatches: int | None = None,
        weigh: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> torch.Tensor:
        """Compute gradients of the mean loss over this share of a batch, averaged over shares.

        Args:
            model: what `wrap` returned.
            x: this share's inputs.
            y: what else the loss needs.
            loss_fn: takes the model's output and `y`, and returns the mean over their samples.
            microbatches: pieces that the share is gone through in; 1 by default, in a pipeline
                twice as many as stages, and never fewer than these.
            weigh: turns this share's mean loss into what gradients are taken of; linear.

        Returns:
            this share's mean loss, detached.
        """
        if isinstance(model, Pipelined):
            loss = model.forward_backward(x, y, loss_fn, microbatches, weigh)
        else:
            loss = step_whole(model, x, y, loss_fn, microbatches or 1, weigh)
        self._settle()
        return loss

    def clip_grad_norm(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Scale gradients down so that their norm over the whole model is at most a number.

        Returns:
            the norm before, the same on every rank.
        """
        return clip_gradients(parameters, max_norm, self.mesh, self._copies)

    def gather_weights(self, module: nn.Module) -> Weights | None:
        """Return, on rank 0, a bare module's whole state; every rank must call it."""
        return self._state.gather_weights(self._spreads[id(module)])

    def load_weights(
        self, module: nn.Module, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any]
    ) -> None:
        """Give a bare module this rank's part of a whole state."""
        self._state.load_weights(self._spreads[id(module)], tensors, extra)

    def gather_optimizer(
        self, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Return, on rank 0, an optimizer's whole state by name; every rank must call it.

        Args:
            models: the bare modules by name.
            optimizer: of some of their parameters.
        """
        return self._state.gather_optimizer(self._spreads_of(models), optimizer)

    def load_optimizer(
        self,
        models: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
    ) -> None:
        """Give an optimizer this rank's part of a whole state."""
        self._state.load_optimizer(self._spreads_of(models), optimizer, state)

    def _spreads_of(self, models: Mapping[str, nn.Module]) -> dict[str, Spread]:
        return {name: self._spreads[id(module)] for name, module in models.items()}

    def _share_out(self, module: nn.Module) -> None:
        """Shard a module, or see to it that its gradients and buffers are those of all shares."""
        groups = self._groups("data", "shard")
        if self.layout.shard > 1:
            names = ("data", "shard") if self.layout.data > 1 else ("shard",)
            is_cut = self.layout.pipeline > 1
            averaged = shard_module(module, self.mesh[names], keeps_gathered=is_cut)
        else:
            averaged = list(module.parameters())
        if groups:
            self._averaged.append((averaged, groups))
            BufferSync(module, groups)

    def _settle(self) -> None:
        """Make of the gradients what a step needs, after the last backward pass before it."""
        if self.layout.tensor > 1:
            for spread in self._spreads.values():
                align_gradients(spread.module.parameters())
        for parameters, groups in self._averaged:
            average_gradients(parameters, groups)

    def _groups(self, *dimensions: str) -> list[dist.ProcessGroup]:
        """Return this rank's groups in those dimensions that have several ranks."""
        return [self.mesh[each].get_group() for each in dimensions if self.mesh[each].size() > 1]


def _agree_on(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0, which may have been drawn apart."""
    with torch.no_grad():
        for each in [*module.parameters(), *module.buffers()]:
            dist.broadcast(each, 0)
