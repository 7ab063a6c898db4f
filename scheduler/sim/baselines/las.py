"""Two-queue attained service: new jobs first, and nobody needs to know how long they run.

Looks at GPUs only. A job is in the first queue until it has had `FIRST_QUEUE_GPU_MS`, then in the
second; the first goes before the second, each in the order in which jobs came into it, and whoever
comes later makes way.

Source: Tiresias-L (Gu et al., NSDI 2019), with the threshold of 16 GPU-hours and without promotion
of who starves, as the simulator of Pollux (petuum/adaptdl) has it. Ours acts at each event instead
of in rounds of a minute.
"""

from __future__ import annotations

from itertools import chain

from scheduler.sim.baselines.preemptive import choose_places
from scheduler.sim.baselines.replay import Baseline, Task, World

FIRST_QUEUE_GPU_MS = 16 * 3_600_000


class TwoQueueLas(Baseline):
    """Both queues by index, in order of entry, with those that run."""

    def __init__(self) -> None:
        self._first: dict[int, Task] = {}
        self._second: dict[int, Task] = {}
        self._running: dict[int, Task] = {}

    def submitted(self, task: Task) -> None:
        """Line up in the first queue."""
        self._first[task.index] = task

    def ended(self, task: Task) -> None:
        """Leave its queue."""
        queue = self._first if task.index in self._first else self._second
        del queue[task.index]
        del self._running[task.index]

    def decide(self, world: World) -> int | None:
        """Give the GPUs to the first queue, then to the second; wake when a job has to move."""
        for index, task in self._running.items():
            if index in self._first and _crossing_ms(task) <= world.now_ms:
                self._second[index] = self._first.pop(index)
        choice = choose_places(
            chain(self._first.values(), self._second.values()), self._running, world.slots
        )
        for task in choice.evicted:
            world.evict(task)
            del self._running[task.index]
        for index, place in choice.started.items():
            task = self._first.get(index) or self._second[index]
            world.start(task, place)
            self._running[index] = task
        return min(
            (_crossing_ms(task) for i, task in self._running.items() if i in self._first),
            default=None,
        )


def _crossing_ms(task: Task) -> int:
    """Return when a running job will have had what the first queue gives."""
    missing_ms = -(-FIRST_QUEUE_GPU_MS // task.gpus) - task.served_ms
    return task.started_ms + task.resume_ms + max(0, missing_ms)
