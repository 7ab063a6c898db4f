"""What every way of joining replicas owes to a training: the duties of a mode.

A mode wraps a model, weighs a loss, acts after a step, says which samples come next, carries the
small talk among all ranks, and says what it needs in a checkpoint. The defaults here are those of
replicas that take the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

    from trainmaster._layout import Layout
    from trainmaster._order import Batch, Cursor, Plan
    from trainmaster.train.inner.full_state import Weights
    from trainmaster.train.replica import Inner


class UnsupportedMode(NotImplementedError):
    """The job asks for a parallelism or synchronization that this version cannot run."""


class Synchronization:
    """The replicas of a model, joined in some way.

    Attributes:
        rank: number of this process among all of the job.
        size: how many those are.
        device: where this one computes.
        layout: how all ranks of the job stand.
        share: which share of all there is this rank computes on, and how many there are. Ranks
            that compute one share together have the same.
        in_step: whether all replicas take the same steps.
    """

    rank: int
    size: int
    device: torch.device
    layout: Layout
    share: tuple[int, int]
    in_step: bool = True
    _inner: Inner

    @property
    def batch_share(self) -> tuple[int, int]:
        """Which share of what `batches` yields is this rank's, and how many there are."""
        return self.share

    # At the beginning.

    def spread(self, module: torch.nn.Module) -> torch.nn.Module:
        """Divide a module that is placed among the ranks of a replica; return what to call."""
        return self._inner.wrap(module)

    def wrap(
        self,
        name: str,
        module: torch.nn.Module,
        callable_: torch.nn.Module,
        *,
        find_unused_parameters: bool,
    ) -> torch.nn.Module:
        """Join the replicas of a module; return what to call.

        Args:
            name: of the model.
            module: the bare one, spread and with its weights.
            callable_: what `spread` returned for it.
            find_unused_parameters: some parameters may get no gradient in some steps.
        """
        raise NotImplementedError

    @property
    def settles_parameters(self) -> bool:
        """Whether `wrap` settles for good which parameters are trained."""
        return False

    @property
    def takes_scaler(self) -> bool:
        """Whether all ranks judge by the same gradients whether to take a step."""
        return not self.layout.is_split

    def adopt(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Take over what an optimizer's step does, if the mode has to; its state is loaded."""

    def hand_over(
        self, tell: Callable[[], dict[str, Any]], hear: Callable[[dict[str, Any]], None]
    ) -> None:
        """Say what else is the same on all replicas, where one may join later and is to have it.

        Args:
            tell: returns it by name: tensors and plain values; of what is more, nothing is sent.
            hear: is given what another replica's `tell` has returned, before the first batch.
        """

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

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients of a loss that is weighed already."""
        self._inner.backward(loss)

    def forward_backward(
        self,
        model: torch.nn.Module,
        x: Any,
        y: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        *,
        microbatches: int | None,
        weigh: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Compute gradients of the mean loss over this rank's share; return it, detached."""
        return self._inner.forward_backward(
            model, x, y, loss_fn, microbatches=microbatches, weigh=weigh
        )

    def clip_grad_norm(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Scale gradients so that their norm over the whole model is at most `max_norm`."""
        return self._inner.clip_grad_norm(parameters, max_norm)

    def after_step(self, step: int, num_samples: int) -> None:
        """Do what is due once the script is done with a step."""

    def end_loop(self, step: int, meet_in_s: float | None = None) -> bool:
        """Do what is due once a loop over the data has ended, by itself or by a `break`.

        Args:
            step: the last.
            meet_in_s: after how long from now all are to meet, if others go on until then.

        Returns:
            whether it is over. Else others are in it still and have stopped to meet: take part,
            and call this again.
        """
        del step, meet_in_s
        return True

    def may_meet(self, step: int) -> bool:
        """Whether a checkpoint may be taken after this step; the same on all ranks."""
        return True

    @property
    def found_step(self) -> int | None:
        """How far the others were when this rank found them at work; None if all began together."""
        return None

    @property
    def joined_step(self) -> int | None:
        """After which step a replica joined last, this one or another; None if none ever has."""
        return None

    def want_to_meet(self) -> None:
        """Ask that all be where a checkpoint may be taken soon, if they are not in any case."""

    @property
    def meeting_at(self) -> Cursor | None:
        """Where in the data all are while they meet; None where that is where each is."""
        return None

    @property
    def ends_together(self) -> bool:
        """Whether a loop is over for ranks that do not go in step, who meet once they have left it.

        Some hear it after a step, others when they ask for one, or after a `break`.
        """
        return False

    # Small talk: every rank must call the same, in the same order.

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all ranks."""
        raise NotImplementedError

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the shares, on the rank's device."""
        raise NotImplementedError

    def gather(self, state: dict[str, Any]) -> Sequence[dict[str, Any] | None] | None:
        """Return everybody's state on rank 0, in the order of ranks; None elsewhere.

        In place of a rank that is dead, where the mode survives that, is None.
        """
        raise NotImplementedError

    # What outlives the process. The whole of it is gathered on rank 0; every rank must call it.

    def gather_weights(self, module: torch.nn.Module) -> Weights | None:
        """Return a bare module's tensors by first name, other names, and what is no tensor."""
        return self._inner.gather_weights(module)

    def load_weights(
        self, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any]
    ) -> None:
        """Give a module this rank's part of a whole state."""
        self._inner.load_weights(module, tensors, extra)

    def gather_optimizer(
        self, models: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Return an optimizer's state by the names of parameters."""
        return self._inner.gather_optimizer(models, optimizer)

    def load_optimizer(
        self,
        name: str,
        models: Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
    ) -> None:
        """Give the optimizer of that name this rank's part of a whole state."""
        self._inner.load_optimizer(models, optimizer, state)

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank adds to a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, states: Sequence[Mapping[str, Any] | None], layout: Layout) -> None:
        """Go on from what `state_dict` gave on each rank of a layout; before anything else.

        In place of a rank that was missing at the checkpoint is None.
        """

    def close(self) -> None:
        """Leave the others in order."""
