"""Metrics of communication, from sums: what the last steps sent, and how long they waited.

It is told of each step, and says something once in a while. It asks nobody anything, and knows
neither torch nor who keeps the sums. What each metric means: docs/communication.md.
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

from trainmaster.train.accounting.ledger import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainmaster._communication import Prediction
    from trainmaster.train.accounting.sockets import Wire

EVERY_S = 2.0
SHARED_STEPS = 8  # of which ranks compare how long they waited
_NOT_WAITED = 2**62
_US = 1e6


class Meter:
    """What one rank says about its communication.

    Args:
        read: returns the sums of a rank's communication.
        record: takes a step and metrics by name.
        num_ranks: of the job.
        read_wire: returns what the kernel has counted.
    """

    def __init__(
        self,
        read: Callable[[], Totals],
        record: Callable[[int, Mapping[str, float]], None],
        *,
        num_ranks: int,
        read_wire: Callable[[], Wire | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
    ) -> None:
        self._read, self._record, self._read_wire = read, record, read_wire
        self._num_ranks, self._clock, self._every_s = num_ranks, clock, every_s
        self._prediction: Prediction | None = None
        self._round_steps = 1
        # The rounds that are compared next: when they began, when the last whole one ended.
        self._rounds = self._whole_rounds = Totals()
        self._num_round_steps = self._num_whole_steps = 0
        self._compared: dict[str, float] = {}
        self._recent_s: collections.deque[float] = collections.deque(maxlen=SHARED_STEPS)
        self._transfer_share: float | None = None
        self._began_s = self._exposed_s = 0.0
        self._totals = Totals()
        self._wire: Wire | None = None
        self._num_steps = self._num_samples = 0
        self._start()

    def expect(self, prediction: Prediction | None, *, round_steps: int = 1) -> None:
        """Take what a step is going to send, to be compared with what it did.

        Args:
            prediction: for one step.
            round_steps: steps between rounds: only over whole rounds does a step send what was
                predicted, and only these are compared.
        """
        self._prediction, self._round_steps = prediction, round_steps

    def begin(self) -> None:
        """Leave out what came before: steps follow."""
        self._start()
        self._compared = {}
        self._rounds = self._totals
        self._num_round_steps = 0

    def step(self, step: int, num_samples: int) -> None:
        """Take note of a step; report when it is time.

        Args:
            step: its number.
            num_samples: of its batch, over all ranks.
        """
        totals = self._read()
        self._recent_s.append(totals.exposed_s - self._exposed_s)
        self._exposed_s = totals.exposed_s
        self._num_steps += 1
        self._num_samples += num_samples
        self._num_round_steps += 1
        if self._num_round_steps % self._round_steps == 0:
            self._compared = self._compare(totals)
        if self._clock() - self._began_s >= self._every_s:
            self.report(step)

    def report(self, step: int) -> None:
        """Record the steps since the last report, if there are any."""
        if self._num_steps:
            self._record(step, self._describe())
        self._start()

    # How long the slowest of all waited, which is what the transfer takes. Asked on occasions at
    # which the ranks speak to each other anyway, so that asking costs no wait.

    def offer(self) -> list[int]:
        """Return numbers of which every rank needs the largest over all ranks."""
        waited = [-round(each * _US) for each in self._recent_s]
        return waited + [-_NOT_WAITED] * (SHARED_STEPS - len(waited))

    def take(self, largest: Sequence[int]) -> None:
        """Take the largest over all ranks of what each offered.

        In each step the rank that came last waited least, and for nothing but the transfer.
        """
        pairs = [(own, -each / _US) for own, each in zip(self._recent_s, largest)]
        own_s = sum(own for own, _ in pairs)
        if own_s > 0:
            self._transfer_share = min(1.0, sum(least for _, least in pairs) / own_s)

    def _start(self) -> None:
        self._began_s = self._clock()
        self._totals = self._read()
        self._exposed_s = self._totals.exposed_s
        self._wire = self._read_wire()
        self._num_steps = self._num_samples = 0
        if self._compared:
            self._compared, self._rounds = {}, self._whole_rounds
            self._num_round_steps -= self._num_whole_steps

    def _describe(self) -> dict[str, float]:
        totals, steps = self._read(), self._num_steps
        elapsed_s = max(self._clock() - self._began_s, 1e-9)
        before = self._totals.sent_bytes
        phases = {
            phase: (sent - before.get(phase, 0.0)) / steps
            for phase, sent in totals.sent_bytes.items()
        }
        sent = sum(phases.values())
        exposed_s = totals.exposed_s - self._totals.exposed_s
        said = {
            "comm/bytes_logical_per_step": sent,
            **{
                f"comm/bytes_logical_per_step/{phase}": each
                for phase, each in phases.items()
                if each
            },
            "comm/bytes_per_sample": sent * self._num_ranks * steps / max(1, self._num_samples),
            "comm/exposed_seconds": exposed_s / steps,
            "comm/utilization": max(0.0, 1 - exposed_s / elapsed_s),
        }
        said.update(self._compared)
        said.update(self._describe_wire(steps))
        said.update(_describe_waits(self._totals, totals, self._transfer_share, steps))
        said.update(_describe_staleness(self._totals.staleness, totals.staleness))
        return said

    def _compare(self, totals: Totals) -> dict[str, float]:
        """Return what the rounds since the last that were told say of the prediction."""
        prediction = self._prediction
        if prediction is None:
            return {}
        self._whole_rounds, self._num_whole_steps = totals, self._num_round_steps
        before = self._rounds.sent_bytes
        # What ranks agree on and what a script adds up by itself is in no prediction.
        sent = sum(
            totals.sent_bytes.get(phase, 0.0) - before.get(phase, 0.0)
            for phase in prediction.bytes_per_step
        )
        sent /= self._num_round_steps
        said = {}
        if sent and prediction.ddp_bytes_per_step:
            said["comm/reduction_vs_ddp"] = prediction.ddp_bytes_per_step / sent
        if prediction.total_bytes and not prediction.missing:
            said["comm/prediction_error"] = sent / prediction.total_bytes - 1
        return said

    def _describe_wire(self, steps: int) -> dict[str, float]:
        before, now = self._wire, self._read_wire()
        if before is None or now is None:
            return {}
        return {
            "comm/bytes_wire_sent_per_step": (now.sent - before.sent) / steps,
            "comm/bytes_wire_received_per_step": (now.received - before.received) / steps,
        }


def _describe_waits(
    before: Totals, now: Totals, transfer_share: float | None, steps: int
) -> dict[str, float]:
    exposed_s = now.exposed_s - before.exposed_s
    straggler_s = now.straggler_s - before.straggler_s
    gate_s = now.gate_s - before.gate_s
    if transfer_share is not None:
        straggler_s += (1 - transfer_share) * max(0.0, exposed_s - straggler_s - gate_s)
    elif not now.straggler_s and not now.gate_s:
        return {}  # nobody has told the causes apart
    return {
        "sync/wait_transfer": max(0.0, exposed_s - straggler_s - gate_s) / steps,
        "sync/wait_straggler": straggler_s / steps,
        "sync/wait_gate": gate_s / steps,
    }


def _describe_staleness(before: Mapping[int, int], now: Mapping[int, int]) -> dict[str, float]:
    new = {age: count - before.get(age, 0) for age, count in sorted(now.items())}
    ages = [age for age, count in new.items() for _ in range(count)]
    if not ages:
        return {}
    return {
        "sync/staleness_mean": sum(ages) / len(ages),
        "sync/staleness_p95": ages[(95 * len(ages) - 1) // 100],
        "sync/staleness_max": ages[-1],
    }
