"""What a rank has sent and how long it has waited, added up since the process began.

Knows nothing of torch: whoever communicates says so here. Sums only grow; who wants to know what
a step cost takes the sums before and after it.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Sum:
    """All calls of one operation in one phase.

    Attributes:
        calls: how many.
        payload_bytes: what they were about: the size of the tensor that is reduced, of the
            tensor that is gathered from all.
        sent_bytes: what leaves a rank for it, mean over the group.
    """

    calls: int = 0
    payload_bytes: float = 0.0
    sent_bytes: float = 0.0


@dataclass(frozen=True)
class Totals:
    """The sums at one moment.

    Attributes:
        sent_bytes: by phase.
        exposed_s: how long the training waited for communication.
        straggler_s: of that, until other replicas were there, as far as it is known.
        gate_s: of that, until the bound of staleness allowed to go on.
        staleness: how many updates were so many versions old.
    """

    sent_bytes: dict[str, float] = field(default_factory=dict)
    exposed_s: float = 0.0
    straggler_s: float = 0.0
    gate_s: float = 0.0
    staleness: dict[int, int] = field(default_factory=dict)


class Ledger:
    """The sums of one process.

    Attributes:
        world: what is summed in the group of all ranks, outside of backward passes.
        phase: what is counted now belongs to this phase; None leaves it to who counts.
        is_evaluating: whether models are only looked at just now, which is no part of a step.
    """

    def __init__(self, world: str = "other") -> None:
        self.world = world
        # The reducer of DDP counts from autograd's thread where the model is on a GPU.
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], Sum] = {}
        self._exposed_s = 0.0
        self.phase: str | None = None
        self.is_evaluating: Callable[[], bool] = lambda: False

    def add(self, phase: str, operation: str, payload_bytes: float, sent_bytes: float) -> None:
        """Count one call."""
        key = (self.phase or phase, operation)
        with self._lock:
            each = self._sums.get(key)
            if each is None:
                each = self._sums[key] = Sum()
            each.calls += 1
            each.payload_bytes += payload_bytes
            each.sent_bytes += sent_bytes

    @property
    def exposed_s(self) -> float:
        """How long the training has waited for communication so far."""
        return self._exposed_s

    def wait(self, seconds: float) -> None:
        """Count time in which the training stood still for communication."""
        with self._lock:
            self._exposed_s += seconds

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count what happens in the block as part of a phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def sums(self) -> dict[tuple[str, str], Sum]:
        """Return a copy of everything, by phase and operation."""
        with self._lock:
            return {
                key: Sum(each.calls, each.payload_bytes, each.sent_bytes)
                for key, each in self._sums.items()
            }

    def totals(self) -> Totals:
        """Return the sums that a report needs."""
        sent_bytes: dict[str, float] = {}
        with self._lock:
            for (phase, _), each in self._sums.items():
                sent_bytes[phase] = sent_bytes.get(phase, 0.0) + each.sent_bytes
            return Totals(sent_bytes, self._exposed_s)
