"""Replicas joined by servers, each a torch world of its own: every mode but `allreduce`.

What is said between replicas is `outer`'s; here it is put together with what is said within one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from trainmaster._layout import Layout
from trainmaster.train.outer import join_outer
from trainmaster.train.replica import form_replica
from trainmaster.train.synchronization import Synchronization
from trainmaster.train.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trainmaster._order import Batch, Cursor, Plan
    from trainmaster.run import Run
    from trainmaster.train.inner.full_state import Weights
    from trainmaster.train.outer.counters import Snapshot


class Replicas(Synchronization):
    """This rank's part in a replica, and that replica among the others."""

    def __init__(self, run: Run, device: str | None) -> None:
        self.rank, self.size = run.rank, run.world_size
        self.layout = Layout.from_description(run.description.get("parallel"), self.size)
        place, inner = self.layout.place(self.rank), self.layout.replica()
        self._slot = self.rank % inner.size
        self._joined = join_outer(
            run.description,
            run.places,
            replica=place.data,
            num_replicas=self.layout.data,
            slot=self._slot,
            num_slots=inner.size,
        )
        self.in_step = self._joined.in_step
        # A replica alone is the world of the job, and nobody keeps a store for it.
        members = (self._slot, inner.size) if self.layout.data > 1 else None
        self._world = World(run, device, members=members, name=str(place.data))
        self.device = self._world.device
        self._inner = form_replica(inner, self._slot, self.device)
        self._is_first = place.data == 0
        self.share = (self.layout.share(self.rank), self.layout.shares)
        self._mode = run.description["sync"]["mode"]
        self._has_own_optimizers = self._mode != "parameter_server"
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._saved_optimizers: dict[str, dict[str, Any]] = {}

    @property
    def batch_share(self) -> tuple[int, int]:
        """Who does not go in step is given pieces of a batch, and takes each in whole."""
        return self.share if self.in_step else (0, 1)

    # At the beginning.

    def wrap(
        self,
        name: str,
        module: torch.nn.Module,
        callable_: torch.nn.Module,
        *,
        find_unused_parameters: bool,
    ) -> torch.nn.Module:
        """Make a module one that the replicas share: what this rank has of it."""
        own = callable_ if self.layout.pipeline > 1 else module
        self._joined.wrap(name, own, find_unused_parameters=find_unused_parameters)
        return callable_

    def adopt(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer's step to the servers, where the mode says so."""
        self._optimizers[name] = optimizer
        self._joined.adopt(name, optimizer)

    def hand_over(
        self, tell: Callable[[], dict[str, Any]], hear: Callable[[dict[str, Any]], None]
    ) -> None:
        """Let who joins have what another replica can tell it."""
        self._joined.hand_over(tell, hear)

    # At each step.

    def batches(self, plan: Plan, cursor: Cursor) -> Iterator[Batch]:
        """Yield what is left of a loop; the replicas meet before the first batch."""
        return self._joined.batches(plan, cursor)

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss such that the mean over ranks and replicas is that of all samples."""
        if self.layout.is_split:
            return super().weigh(loss, num_samples, num_samples_all)
        return self._joined.weigh(loss, num_samples, num_samples_all)

    def after_step(self, step: int, num_samples: int) -> None:
        """Do the round that is due."""
        self._joined.after_step(step, num_samples)

    def end_loop(self, step: int, meet_in_s: float | None = None) -> bool:
        """Do a round for the steps since the last, or wait for those who are in the loop still."""
        return self._joined.end_loop(step, meet_in_s)

    def may_meet(self, step: int) -> bool:
        """Whether all replicas are at this point together."""
        return self._joined.may_meet(step)

    @property
    def settles_parameters(self) -> bool:
        """Rounds exchange what was trained when they began; servers take any gradient."""
        return self.layout.data > 1 and self._has_own_optimizers

    @property
    def takes_scaler(self) -> bool:
        """Not where servers take the step: they hear of no gradient that a rank leaves out."""
        return super().takes_scaler and (self.layout.data == 1 or self._has_own_optimizers)

    @property
    def found_step(self) -> int | None:
        """How far the others were when this rank found them at work; None if all began together."""
        found = self._joined.joined_at
        return None if found is None else found.step

    @property
    def joined_step(self) -> int | None:
        """After which step a replica joined last, this one or another; None if none ever has."""
        return self._joined.joined_step

    def want_to_meet(self) -> None:
        """Ask that they soon are."""
        self._joined.want_to_meet()

    @property
    def meeting_at(self) -> Cursor | None:
        """Where in the data all are while they meet, if that is not where this rank is."""
        return None if self.in_step else self._joined.meeting_at

    @property
    def ends_together(self) -> bool:
        """Whether a loop out of step is over for all."""
        return self._joined.ends_together

    # Small talk: within the replica, then among the ranks of the same number in each.

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all ranks."""
        return self._joined.maximum(self._world.maximum(values))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the shares, on the rank's device."""
        is_counted = self.layout.is_share_head(self.rank)
        own = self._world.sum(values if is_counted else torch.zeros_like(values))
        return self._joined.sum(own).to(self.device)

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any] | None] | None:
        """Return everybody's state on rank 0, in the order of ranks; None elsewhere.

        In place of who is dead, or has yet to join, is None.
        """
        own = self._world.gather(state)
        if own is None:
            return None
        found = self._joined.gather({"ranks": own})
        if found is None:
            return None
        missing = {"ranks": [None] * len(own)}
        replicas = [found.get(replica, missing) for replica in range(self.layout.data)]
        return [each for replica in replicas for each in replica["ranks"]]

    # What outlives the process.

    def gather_weights(self, module: torch.nn.Module) -> Weights | None:
        """Return the first replica's, which at a meeting are everybody's."""
        return self._inner.gather_weights(module) if self._is_first else None

    def gather_optimizer(
        self, models: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Return the first replica's; the others' are in their own state."""
        return self._inner.gather_optimizer(models, optimizer) if self._is_first else None

    def load_optimizer(
        self,
        name: str,
        models: Mapping[str, torch.nn.Module],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
    ) -> None:
        """Give an optimizer what this replica's had, or else what the first one's had."""
        if name in self._saved_optimizers:
            _load_own_state(optimizer, self._saved_optimizers[name])
        else:
            super().load_optimizer(name, models, optimizer, state)

    def state_dict(self) -> dict[str, Any]:
        """Return what the servers hold, on the first replica, and what each has for itself.

        The first replica's optimizers are in the checkpoint in any case (`gather_optimizer`).
        """
        own = {}
        if self._has_own_optimizers and not self._is_first:
            own = {name: _own_state(each) for name, each in self._optimizers.items()}
        return {"mode": self._mode, "joined": self._joined.state_dict(), "optimizers": own}

    def load_state_dict(self, states: Sequence[Mapping[str, Any] | None], layout: Layout) -> None:
        """Go on from what `state_dict` gave on each rank of a layout; None where one was missing.

        In another layout of a replica, or another mode, what the servers held no longer fits, and
        the outer momentum begins anew; with another number of replicas each takes over the
        optimizer that one had. Who was missing starts from what all share, and says so.
        """
        first = states[0]
        if first is None or "joined" not in first or layout.replica() != self.layout.replica():
            return
        column = states[self._slot :: layout.replica_size]
        if first["mode"] == self._mode:
            self._joined.load_state_dict([each and each["joined"] for each in column])
        replica = self.layout.place(self.rank).data
        source = replica % len(column)
        mine = column[source]
        if mine is None:
            sys.stderr.write(
                f"trainmaster: replica {source} was missing at the checkpoint: replica {replica} "
                "starts from what all share, with the optimizer of replica 0 and random "
                "generators of its own\n"
            )
            sys.stderr.flush()
        self._saved_optimizers = dict(mine["optimizers"]) if mine else {}

    def counters(self) -> Snapshot:
        """Return bytes and waits among the replicas since the beginning."""
        return self._joined.counters()

    def close(self) -> None:
        """Say goodbye."""
        self._joined.close()
        self._world.close()


def _own_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state with this rank's parts of tensors that are divided."""
    packed = optimizer.state_dict()
    states = {
        number: {
            key: value.to_local() if isinstance(value, DTensor) else value
            for key, value in state.items()
        }
        for number, state in packed["state"].items()
    }
    return {"state": states, "param_groups": packed["param_groups"]}


def _load_own_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    states = {
        number: {key: _as_divided(value, parameters[number]) for key, value in state.items()}
        for number, state in saved["state"].items()
    }
    optimizer.load_state_dict({"state": states, "param_groups": saved["param_groups"]})


def _as_divided(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.to_local().shape or value.ndim == 0:
        return value
    return DTensor.from_local(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
