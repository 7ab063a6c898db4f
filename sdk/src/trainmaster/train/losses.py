"""Losses and weights that are no numbers any more, found without waiting for a GPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from trainmaster.train.metrics import MetricLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._spool import Number
    from trainmaster.run import Run


class LossWatch:
    """Sees every loss of this rank that gradients are computed of.

    On a GPU a loss is looked at once it has arrived, a few steps later; `settle` waits for it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._losses = MetricLog(self._look)

    def see(self, step: int, loss: torch.Tensor) -> None:
        """Take a loss of no dimension.

        Raises:
            NonFiniteLoss: this one or an earlier one is NaN or infinite, and the job ends on that.
        """
        if not self._run._ends_on_nan or loss.ndim > 0:
            return
        if loss.is_cuda:
            self._losses.add(step, {"loss": loss.detach()})
        elif not math.isfinite(value := loss.item()):
            self._run._refuse_bad_loss(step, {"loss": value})

    def settle(self) -> None:
        """Wait until every loss has been looked at; raises as `see`."""
        self._losses.flush()

    def _look(self, step: int, _time_s: float, values: Mapping[str, Number]) -> None:
        self._run._refuse_bad_loss(step, values)


def find_nan(weights: Mapping[str, Mapping[str, torch.Tensor]]) -> str | None:
    """Return the name of a tensor that holds a NaN, None if none does.

    Infinities pass: masks are made of them, and weights that hold one yield NaN a step later.
    """
    for tensors in weights.values():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and _holds_nan(tensor):
                return name
    return None


def _holds_nan(tensor: torch.Tensor) -> bool:
    # The sum is NaN if an element is, and costs no memory; of eight bits there is none.
    if tensor.itemsize > 1 and not torch.isnan(tensor.sum()):
        return False
    return bool(torch.isnan(tensor).any())
