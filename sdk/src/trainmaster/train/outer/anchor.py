"""What a round does to the state that all replicas share. Pure: flat tensors in, flat tensors out.

The anchor is where all replicas were when they parted. Each comes back with a delta: anchor minus
its own parameters. Their mean is a gradient for the outer optimizer, which moves the anchor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainmaster.train.outer.codec import Codec

OUTER_LR, OUTER_MOMENTUM = 0.7, 0.9  # the paper's, for Nesterov


def add_weighted(
    total_P: torch.Tensor, value_P: torch.Tensor, weight: float, *, is_first: bool
) -> None:
    """Make the total a weighted value, or add one to it.

    Whoever adds in the order of replicas gets the same bits each time.
    """
    if is_first:
        torch.mul(value_P, weight, out=total_P)
    else:
        total_P.add_(value_P, alpha=weight)


def fractions(weights: Sequence[float]) -> list[float]:
    """Return the weights such that they add up to 1; all zero is all equal."""
    total = sum(weights)
    return [weight / total if total else 1 / len(weights) for weight in weights]


class OuterOptimizer:
    """Moves the anchor by the mean delta: SGD, with Nesterov's momentum unless that is 0.

    With lr 1 and momentum 0 the anchor becomes the mean of the replicas: local SGD.

    Source:
        DiLoCo (Douillard et al., 2023), algorithm 1; the update is torch's `SGD(nesterov=True)`.
    """

    def __init__(self, lr: float = 1.0, momentum: float = 0.0) -> None:
        self.lr, self.momentum = lr, momentum

    def step(
        self, anchor_P: torch.Tensor, delta_P: torch.Tensor, momentum_P: torch.Tensor | None
    ) -> None:
        """Move the anchor in place; `delta_P` is used as scratch space."""
        if momentum_P is not None:
            momentum_P.mul_(self.momentum).add_(delta_P)
            delta_P.add_(momentum_P, alpha=self.momentum)
        anchor_P.sub_(delta_P, alpha=self.lr)


class Mirror:
    """What replicas have of a vector that the server has, when it is sent to them compressed.

    They and the server add the same decoded bytes to the same numbers, so it knows to the last
    bit what they have; the residual, true minus known, goes into what is sent next.
    """

    def __init__(self, codec: Codec, true_P: torch.Tensor, *, is_copy: bool = False) -> None:
        """`is_copy`: the vector changes while it is sent, or what they have must be remembered."""
        self._codec = codec
        self.true_P = true_P
        self.known_P = true_P.clone() if is_copy or not codec.is_exact else true_P

    def encode(self, wanted_P: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return what brings the replicas up to date, or to what else they are wanted to have."""
        wanted_P = self.true_P if wanted_P is None else wanted_P
        if self._codec.is_exact:
            if self.known_P is not self.true_P:
                self.known_P.copy_(wanted_P)
            return self._codec.encode(self.known_P)
        missing_P = wanted_P - self.known_P
        parts = self._codec.encode(missing_P)
        self._codec.decode(parts, missing_P)
        self.known_P += missing_P
        return parts


def follow(codec: Codec, parts: Sequence[torch.Tensor], known_P: torch.Tensor) -> None:
    """Bring what a replica knows up to date; the other half of `Mirror`."""
    if codec.is_exact:
        codec.decode(parts, known_P)
        return
    change_P = torch.empty_like(known_P)
    codec.decode(parts, change_P)
    known_P += change_P
