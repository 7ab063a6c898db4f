"""FIFO gang: in submit order, and nobody passes a gang that does not fit yet. Sees GPUs only."""

from __future__ import annotations

from collections import deque

from scheduler.sim.baselines.replay import Baseline, Task, World


class Fifo(Baseline):
    """What a queue does when nobody configures it."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    def submitted(self, task: Task) -> None:
        """Line up."""
        self._waiting.append(task)

    def ended(self, task: Task) -> None:
        """Nothing is kept about running jobs."""

    def decide(self, world: World) -> None:
        """Start from the head of the line until one does not fit."""
        while self._waiting:
            place = world.slots.find_place(self._waiting[0].gpus)
            if place is None:
                return
            world.start(self._waiting.popleft(), place)
