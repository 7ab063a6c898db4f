"""What a rank does with its time: waits for data, computes, communicates, saves, or none of these.

The session says at each border what comes next. On a CPU a clock tells how long each took. A GPU
works on while Python waits for data, so there two events tell for how long it had nothing to do;
nothing waits for them. What a rank waits for others in the middle of its computation is counted
where the collectives are, and taken from there. Everything is shown in the rank's pulse as it
happens, and recorded as metrics once in a while.
"""

from __future__ import annotations

import collections
import contextlib
import time
from typing import TYPE_CHECKING

import torch

from trainmaster._pulse import PHASES
from trainmaster.train.accounting import groups
from trainmaster.train.accounting.works import mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainmaster._pulse import Pulse

DATA_WAIT, COMPUTE, COMMUNICATION, CHECKPOINT, IDLE = range(len(PHASES))
EVERY_S = 10.0
_PAIRS_MAX = 256


class PhaseClock:
    """Measures the phases of one rank, and shows them.

    Args:
        pulse: what the rank shows of itself.
        record: takes metrics by name: the share of each phase in the last while.
        is_on_gpu: whether the rank computes on one.
        read_waited_s: for how long it has waited for others in all, wherever that was.
    """

    def __init__(
        self,
        pulse: Pulse,
        record: Callable[[Mapping[str, float]], None],
        *,
        is_on_gpu: bool,
        read_waited_s: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pulse, self._record, self._clock = pulse, record, clock
        self._read_waited_s = read_waited_s or _read_collectives_s
        self._starved = _Starved() if is_on_gpu else None
        self._seconds = [0.0] * len(PHASES)
        self._phase, self._since_s = IDLE, clock()
        self._waited_s = 0.0
        self._recorded_at_s, self._recorded = self._since_s, list(self._seconds)

    def enter(self, phase: int) -> None:
        """Say what comes now."""
        now_s = self._clock()
        self._end_phase(now_s - self._since_s)
        self._phase, self._since_s = phase, now_s
        self._pulse.enter(phase)
        if phase == DATA_WAIT and self._starved is not None:
            self._starved.begin()

    @contextlib.contextmanager
    def loop(self) -> Iterator[None]:
        """Steps are taken in the block, the first of which waits for its data now."""
        self.enter(DATA_WAIT)
        try:
            yield
        finally:
            self.enter(IDLE)
            self._pulse.expect_no_step()
            if self._starved is not None:
                self._settle()

    def report(self) -> None:
        """Record the shares since the last time, if that is long enough ago."""
        elapsed_s = self._since_s - self._recorded_at_s
        if elapsed_s < EVERY_S:
            return
        shares = {
            f"time/{name}": round((now - before) / elapsed_s, 4)
            for name, now, before in zip(PHASES, self._seconds, self._recorded)
        }
        self._recorded_at_s, self._recorded = self._since_s, list(self._seconds)
        if self._starved is not None:
            self._pulse.note_gpu_peak(torch.cuda.max_memory_allocated())
        self._record(shares)

    def _end_phase(self, spent_s: float) -> None:
        if self._phase == COMPUTE:
            # On a GPU a wait is known a few steps later: what does not fit here is taken then.
            waited_s = min(spent_s, max(0.0, self._read_waited_s() - self._waited_s))
            self._waited_s += waited_s
            self._add(COMMUNICATION, waited_s)
            self._add(COMPUTE, spent_s - waited_s)
            return
        if self._phase == DATA_WAIT and self._starved is not None:
            self._starved.end(spent_s)
            self._settle()
        else:
            self._add(self._phase, spent_s)
        if self._phase != DATA_WAIT:
            self._waited_s = self._read_waited_s()  # what was waited in it is part of it

    def _settle(self) -> None:
        assert self._starved is not None
        for spent_s, starved_s in self._starved.settle():
            self._add(DATA_WAIT, starved_s)
            self._add(COMPUTE, spent_s - starved_s)

    def _add(self, phase: int, seconds: float) -> None:
        self._seconds[phase] += seconds
        self._pulse.add_seconds(phase, seconds)


class _Starved:
    """For how long the GPU had nothing to do while Python waited for data."""

    def __init__(self) -> None:
        self._before: torch.cuda.Event | None = None
        self._pairs: collections.deque[tuple[float, torch.cuda.Event, torch.cuda.Event]]
        self._pairs = collections.deque()

    def begin(self) -> None:
        """All that was asked of the GPU lies before this."""
        self._before = mark()

    def end(self, spent_s: float) -> None:
        """The data are there, after so much time of Python's."""
        if self._before is not None and len(self._pairs) < _PAIRS_MAX:
            self._pairs.append((spent_s, self._before, mark()))
        self._before = None

    def settle(self) -> Iterator[tuple[float, float]]:
        """Yield the waits that the GPU has passed by now: Python's, and its own."""
        while self._pairs and self._pairs[0][2].query():
            spent_s, before, after = self._pairs.popleft()
            yield spent_s, min(spent_s, before.elapsed_time(after) / 1e3)


def _read_collectives_s() -> float:
    """Return for how long this rank has stood still in torch's collectives; 0 if nobody counts."""
    ledger = groups._ledger
    return 0.0 if ledger is None else ledger.exposed_s
