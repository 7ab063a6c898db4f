"""What every way of joining replicas owes to a training: the duties of a mode.

A mode wraps a model, weighs a loss, acts after a step, says which samples come next, carries the
small talk among all ranks, and says what it needs in a checkpoint. The defaults here are those of
replicas that take the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from trainmaster._order import Batch, Cursor, Plan


class UnsupportedMode(NotImplementedError):
    """The job asks for a parallelism or synchronization that this version cannot run."""


class Synchronization:
    """The replicas of a model, joined in some way.

    Attributes:
        rank: number of this process among all of the job.
        size: how many those are.
        device: where this one computes.
        share: which share of a batch this rank computes on, and how many there are. Ranks that
            compute one share together have the same.
        in_step: whether all replicas take the same steps.
    """

    rank: int
    size: int
    device: torch.device
    share: tuple[int, int]
    in_step: bool = True

    # At the beginning.

    def wrap(
        self, name: str, module: torch.nn.Module, *, find_unused_parameters: bool
    ) -> torch.nn.Module:
        """Return what to call for a module that is placed and has its weights."""
        raise NotImplementedError

    def adopt(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Take over what an optimizer's step does, if the mode has to; its state is loaded."""

    # At each step.

    def batches(self, plan: Plan, cursor: Cursor) -> Iterator[Batch]:
        """Yield what is left of a loop, as this rank sees it."""
        return plan.batches(cursor)

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss such that what the mode makes of the gradients is the samples' mean.

        Args:
            loss: mean over this rank's share.
            num_samples: how many those are; 0 where it computes on a borrowed sample.
            num_samples_all: samples of the whole batch.
        """
        share_count = self.share[1]
        if num_samples * share_count == num_samples_all:
            return loss  # the usual case, and then bit for bit what torch does alone
        return loss * (num_samples * share_count / num_samples_all)

    def after_step(self, step: int, num_samples: int) -> None:
        """Do what is due once the script is done with a step."""

    def end_loop(self, step: int) -> None:
        """Do what is due once a loop over the data has ended by itself."""

    def may_meet(self, step: int) -> bool:
        """Whether a checkpoint may be taken after this step; the same on all ranks."""
        return True

    # Small talk: every rank must call the same, in the same order.

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all ranks."""
        raise NotImplementedError

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the shares, on the rank's device."""
        raise NotImplementedError

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Return everybody's state on rank 0, in the order of ranks; None elsewhere."""
        raise NotImplementedError

    # What outlives the process.

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank adds to a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""

    def close(self) -> None:
        """Leave the others in order."""
