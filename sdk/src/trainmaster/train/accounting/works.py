"""A collective under way: the same work, and how long somebody stood still until it was done.

On a CPU whoever waits is blocked, and the clock tells how long. On a GPU it is the stream that
waits: two events around the wait tell, once the device has passed them.
"""

from __future__ import annotations

import collections
import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.autograd import Variable

if TYPE_CHECKING:
    from trainmaster.train.accounting.ledger import Ledger

NO_TIMEOUT = dt.timedelta(0)  # what torch takes for the group's own
EVENTS_MAX = 4096  # pairs that the device has not passed; beyond that it is not sampled


class Stopwatch:
    """Measures the waits of the thread that trains, and those inside its backward passes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = threading.get_ident()
        self._began_s = 0.0
        self._task = -1
        self._pairs: collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]]
        self._pairs = collections.deque()
        self._before: torch.cuda.Event | None = None

    def time_wait(self, work: dist.Work, timeout: dt.timedelta, *, is_on_gpu: bool) -> bool:
        """Wait for a work, and count how long that took."""
        if self._task >= 0 or not self._is_training():
            return work.wait(timeout)
        before = mark() if is_on_gpu else None
        began_s = time.perf_counter()
        try:
            return work.wait(timeout)
        finally:
            if before is None:
                self._ledger.wait(time.perf_counter() - began_s)
            else:
                self._keep(before)

    def time_end_of_backward(self, *, is_on_gpu: bool) -> None:
        """Count what the running backward pass waits for after its last gradient.

        DDP waits for futures, in C++, in a callback that autograd calls at its end. Callbacks run
        in the order in which they came, and one may add another: ours comes before DDP's, and the
        one it adds after.
        """
        task = torch._C._current_graph_task_id()
        if task < 0 or task == self._task:
            return
        self._task = task
        engine = Variable._execution_engine

        def begin() -> None:
            self._before = mark() if is_on_gpu else None
            self._began_s = time.perf_counter()
            engine.queue_callback(end)

        def end() -> None:
            self._task = -1
            if self._before is None:
                self._ledger.wait(time.perf_counter() - self._began_s)
            else:
                self._keep(self._before)

        engine.queue_callback(begin)

    def settle(self) -> None:
        """Count the waits of streams that the device has passed by now."""
        while self._pairs and self._pairs[0][1].query():
            before, after = self._pairs.popleft()
            self._ledger.wait(before.elapsed_time(after) / 1e3)

    def _keep(self, before: torch.cuda.Event) -> None:
        if len(self._pairs) < EVENTS_MAX:
            self._pairs.append((before, mark()))

    def _is_training(self) -> bool:
        in_backward: bool = torch._C._current_graph_task_id() >= 0
        return in_backward or threading.get_ident() == self._thread


def mark() -> torch.cuda.Event:
    """Return an event at this place in the order of the GPU."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class TimedWork(dist.Work):
    """What a counted collective returns; does all that the work itself does."""

    def __init__(self, work: dist.Work, stopwatch: Stopwatch, *, is_on_gpu: bool) -> None:
        super().__init__()
        self._work, self._stopwatch, self._is_on_gpu = work, stopwatch, is_on_gpu

    def wait(self, timeout: dt.timedelta = NO_TIMEOUT) -> bool:
        """Wait, by the watch."""
        return self._stopwatch.time_wait(self._work, timeout, is_on_gpu=self._is_on_gpu)

    def get_future(self) -> Any:
        """Return the future; whoever asks for it in a backward pass waits for it at its end."""
        self._stopwatch.time_end_of_backward(is_on_gpu=self._is_on_gpu)
        return self._work.get_future()


def _pass_on(name: str) -> Any:
    def method(self: TimedWork, *arguments: Any, **named: Any) -> Any:
        return getattr(self._work, name)(*arguments, **named)

    method.__name__ = name
    return method


for _name in dir(dist.Work):
    if not _name.startswith("__") and _name not in {*vars(TimedWork), "_pybind11_conduit_v1_",
                                                    "boxed", "unbox"}:  # fmt: skip
        setattr(TimedWork, _name, _pass_on(_name))
