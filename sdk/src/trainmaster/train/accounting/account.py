"""The communication of one training, from its first step to its last.

Joins the pieces for a session: counts what it sends, predicts what it should, and reports both.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Protocol

import torch
from torch.distributed.fsdp import FSDPModule

from trainmaster._communication import Model, predict, steps_between_rounds
from trainmaster._layout import Layout
from trainmaster.train.accounting.groups import count_collectives, settle_waits
from trainmaster.train.accounting.ledger import Totals
from trainmaster.train.accounting.meter import Meter
from trainmaster.train.accounting.sockets import Connections

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from trainmaster.run import Run


ROUND_PHASES = frozenset({"round", "push", "pull"})


class Counted(Protocol):
    """What somebody counts who speaks to servers: sums since the beginning.

    Attributes:
        sent, received: bytes of tensors as they travelled, by what was said.
        transfer_s, straggler_s, gate_s: waited for bytes, for other replicas, for the bound of
            staleness.
        staleness: how many updates were so many versions old.
    """

    @property
    def sent(self) -> Mapping[str, int]: ...
    @property
    def received(self) -> Mapping[str, int]: ...
    @property
    def transfer_s(self) -> float: ...
    @property
    def straggler_s(self) -> float: ...
    @property
    def gate_s(self) -> float: ...
    @property
    def staleness(self) -> dict[int, int]: ...


class Accounting:
    """Counts from the moment it is made: make it before any process group, in the same thread.

    Attributes:
        ledger: what torch's collectives sent.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._is_alone = run.world_size == 1
        parallel = run.description.get("parallel") or {}
        has_tensor_ranks_only = not self._is_alone and parallel.get("tensor") == run.world_size
        self.ledger = count_collectives("activations" if has_tensor_ranks_only else "other")
        self._read_servers: Callable[[], Counted] | None = None
        self._models: list[torch.nn.Module] = []
        self.ledger.is_evaluating = self._is_evaluating
        self._meter = Meter(
            self.totals, self._record, num_ranks=run.world_size, read_wire=Connections().read
        )

    @functools.cached_property
    def _layout(self) -> Layout:
        # Not before it is needed: whoever joins the ranks says what is wrong with it.
        return Layout.from_description(self._run.description.get("parallel"), self._run.world_size)

    def listen_to(self, mode: object) -> None:
        """Take what a mode that speaks to servers has counted as part of this rank's."""
        self._read_servers = getattr(mode, "counters", None)

    def expect(self, module: torch.nn.Module) -> None:
        """Take a model that is going to be trained: the bare one, after it was spread."""
        self._models.append(module)

    def begin(self, batch_size: int, device: torch.device) -> None:
        """Steps follow: leave out what came before."""
        if self._models and not self._is_alone:
            description = self._run.description
            self._meter.expect(
                predict(
                    self._find_size(),
                    self._layout,
                    description.get("sync") or {},
                    backend="nccl" if device.type == "cuda" else "gloo",
                    batch_size=batch_size,
                ),
                round_steps=steps_between_rounds(description.get("sync") or {}),
            )
        self._meter.begin()

    def _is_evaluating(self) -> bool:
        return bool(self._models) and not any(model.training for model in self._models)

    def _find_size(self) -> Model:
        """Return what the models say themselves where a layout needs that, else what is there.

        How large the activations between blocks are no parameter tells, so a model that brings a
        plan may bring its `train_size` as well.
        """
        said = [getattr(model, "train_size", None) for model in self._models]
        if len(said) == 1 and isinstance(said[0], Model) and not self._takes_samples_apart:
            return said[0]
        return measure(self._models)

    @property
    def _takes_samples_apart(self) -> bool:
        """Whether every rank has samples of its own."""
        return self._layout.tensor == self._layout.pipeline == 1

    def step(self, step: int, num_samples: int) -> None:
        """Take note of a step, of so many samples of this rank's share."""
        if not self._is_alone:
            self._meter.step(step, num_samples * self._layout.shares)

    def finish(self, step: int) -> None:
        """Report what has not been."""
        if not self._is_alone:
            self._meter.report(step)

    def aside(self) -> AbstractContextManager[None]:
        """Count what is sent in the block as no part of a step, as when a state is gathered."""
        return self.ledger.during("other")

    def offer(self) -> list[int]:
        """Return numbers of which every rank needs the largest over all ranks."""
        return self._meter.offer()

    def take(self, largest: Sequence[int]) -> None:
        """Take the largest over all ranks of what each offered."""
        self._meter.take(largest)

    def totals(self) -> Totals:
        """Return what has been sent and waited since the process began."""
        settle_waits()
        totals = self.ledger.totals()
        if self._read_servers is None:
            return totals
        return add_servers(totals, self._read_servers(), self._layout.data)

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        if self._run.rank == 0:
            self._run._record(step, time.time(), dict(values))


def add_servers(totals: Totals, counted: Counted, num_replicas: int) -> Totals:
    """Return sums with what a replica and its servers have said to each other.

    Servers stand beside ranks: of `num_replicas` parts of all that is exchanged one stays on its
    machine, and only the others leave a rank. A replica waits for a server in the open.
    """
    away = (num_replicas - 1) / num_replicas
    sent_bytes = dict(totals.sent_bytes)
    for said in (counted.sent, counted.received):
        for name, count in said.items():
            phase = "outer" if name in ROUND_PHASES else "other"
            sent_bytes[phase] = sent_bytes.get(phase, 0.0) + count * away
    waited_s = counted.transfer_s + counted.straggler_s + counted.gate_s
    return Totals(
        sent_bytes,
        totals.exposed_s + waited_s,
        totals.straggler_s + counted.straggler_s,
        totals.gate_s + counted.gate_s,
        counted.staleness,
    )


def measure(models: Sequence[torch.nn.Module]) -> Model:
    """Return the size of some models together.

    Of parameters that are spread over ranks torch tells the size of the whole.
    """
    trained = {id(each): each for model in models for each in _trained(model)}
    again = {id(each) for model in models for each in _gathered_again(model)}
    count = sum(each.numel() for each in trained.values())
    num_again = sum(trained[key].numel() for key in again & trained.keys())
    return Model(
        num_parameters=count,
        number_bytes=max((each.element_size() for each in trained.values()), default=4),
        buffer_bytes=sum(each.nbytes for model in models for each in model.buffers()),
        root_share=1 - num_again / count if count else 0.0,
    )


def _trained(model: torch.nn.Module) -> list[torch.Tensor]:
    return [each for each in model.parameters() if each.requires_grad]


def _gathered_again(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the parameters that FSDP2 lets go of between the two passes: all but the root's."""
    blocks = [each for each in model.modules() if isinstance(each, FSDPModule)]
    return [each for block in blocks if block is not model for each in block.parameters()]
