"""Parameters that were frozen when replicas were joined, and must stay so.

Where the mode settles at the beginning which gradients or weights replicas exchange, one that is
trained later would be exchanged by nobody, and the replicas would drift apart without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainmaster._job_errors import RunError

if TYPE_CHECKING:
    import torch


class Frozen:
    """Those of some models."""

    def __init__(self) -> None:
        self._parameters: list[tuple[str, torch.nn.Parameter]] = []

    def add(self, name: str, module: torch.nn.Module) -> None:
        """Take note of what of a model is frozen now."""
        for key, parameter in module.named_parameters():
            if not parameter.requires_grad:
                self._parameters.append((f"{name}: {key}", parameter))

    def check(self) -> None:
        """See that they are; costs nothing where there are none.

        Raises:
            RunError: one is trained by now.
        """
        for name, parameter in self._parameters:
            if parameter.requires_grad:
                raise RunError(
                    f"{name} was frozen when run.model() joined the replicas and is trained now: "
                    "its gradient would stay on each of them. Unfreeze it before run.model() and "
                    "give it a learning rate of 0 until then, or end the job there and go on from "
                    "its checkpoint"
                )
