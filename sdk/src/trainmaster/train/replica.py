"""One replica of the models: on one rank, or spread over several that step together.

Both kinds have the same duties, so that nobody else has to ask which it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainmaster.train.inner import InnerGroup
from trainmaster.train.inner.full_state import FullState
from trainmaster.train.inner.microbatches import step_whole
from trainmaster.train.inner.spread import Spread, find_tied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trainmaster._layout import Layout
    from trainmaster.train.inner.full_state import Weights


class Whole:
    """Models that each rank has in whole."""

    def __init__(self, layout: Layout, rank: int) -> None:
        """`layout` is that of the torch world, `rank` the number in it."""
        self._state = FullState(layout, rank)
        self._spreads: dict[int, Spread] = {}

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """Take note of a module; it stays as it is."""
        self._spreads[id(module)] = Spread(module, find_tied(module))
        return module

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients."""
        loss.backward()

    def forward_backward(
        self,
        model: torch.nn.Module,
        x: Any,
        y: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        *,
        microbatches: int | None = None,
        weigh: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> torch.Tensor:
        """Compute the gradients of a share's mean loss, piece by piece; return it, detached."""
        return step_whole(model, x, y, loss_fn, microbatches or 1, weigh)

    def clip_grad_norm(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Scale gradients down to a norm; return the norm before."""
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def gather_weights(self, module: torch.nn.Module) -> Weights | None:
        """Return a module's state on rank 0."""
        return self._state.gather_weights(self._spreads[id(module)])

    def load_weights(
        self, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any]
    ) -> None:
        """Give a module its state."""
        self._state.load_weights(self._spreads[id(module)], tensors, extra)

    def gather_optimizer(
        self, models: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Return an optimizer's state by names, on rank 0."""
        return self._state.gather_optimizer(self._spreads_of(models), optimizer)

    def load_optimizer(
        self,
        models: Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
    ) -> None:
        """Give an optimizer its state."""
        self._state.load_optimizer(self._spreads_of(models), optimizer, state)

    def _spreads_of(self, models: Mapping[str, torch.nn.Module]) -> dict[str, Spread]:
        return {name: self._spreads[id(module)] for name, module in models.items()}


Inner = Whole | InnerGroup


def form_replica(layout: Layout, rank: int, device: torch.device) -> Inner:
    """Return this rank's part of a replica; the torch world of `layout` is there already."""
    return InnerGroup(layout, rank, device) if layout.is_split else Whole(layout, rank)
