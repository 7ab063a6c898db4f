"""SRTF oracle: whoever has the least left to run holds the GPUs. Looks at true durations.

No policy can know these, so it is a mark to measure by and not something to deploy: it evicts for
a second's gain, and a long job goes on only when nothing shorter is there.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

from scheduler.sim.baselines.preemptive import choose_places
from scheduler.sim.baselines.replay import Baseline, Task, World


class Srtf(Baseline):
    """What waits is sorted by what is left, which stands still; what runs by when it ends."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int]] = []  # left, index
        self._tasks: dict[int, Task] = {}
        self._running: dict[int, Task] = {}

    def submitted(self, task: Task) -> None:
        """Sort it in."""
        self._tasks[task.index] = task
        insort(self._waiting, (task.duration_ms, task.index))

    def ended(self, task: Task) -> None:
        """Forget it."""
        del self._tasks[task.index]
        del self._running[task.index]

    def decide(self, world: World) -> None:
        """Give the GPUs to the jobs with the least left; equals in submit order."""
        now_ms = world.now_ms
        running = sorted((task.remaining_ms(now_ms), i) for i, task in self._running.items())
        order = (self._tasks[index] for _, index in heapq.merge(running, self._waiting))
        choice = choose_places(order, self._running, world.slots)
        for index in choice.started:
            if index not in self._running:
                left = (self._tasks[index].remaining_ms(now_ms), index)
                del self._waiting[bisect_left(self._waiting, left)]
        for task in choice.evicted:
            world.evict(task)
            del self._running[task.index]
            if task.index not in choice.started:
                insort(self._waiting, (task.remaining_ms(now_ms), task.index))
        for index, place in choice.started.items():
            task = self._tasks[index]
            world.start(task, place)
            self._running[index] = task
