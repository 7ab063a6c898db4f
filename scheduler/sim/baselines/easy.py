"""EASY backfill: FIFO, but who is sure to be gone in time may pass a head that does not fit.

Looks at GPUs and declared limits. The head of the line is promised the earliest instant at which
it fits if every running job uses up its limit. A later job starts now when its limit ends by then,
or on GPUs that the head leaves free. A job without a limit is taken to run for ever; where nobody
declares one, nothing can be promised and nobody passes: that is FIFO.

Source: the EASY scheduler (Lifka, 1995). Ours promises nodes, not a number of GPUs, because a gang
needs its GPUs together.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque

from scheduler.sim.baselines.replay import Baseline, Task, World
from scheduler.sim.slots import Place

NEVER_MS = 1 << 62

_Key = tuple[int, int]  # GPUs and limit: of equals, only the first in line can be next


class Easy(Baseline):
    """What waits in one line for each pair of GPUs and limit, what runs by its latest end."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, deque[Task]] = {}
        self._running: list[tuple[int, int]] = []  # latest end, index
        self._places: dict[int, Place] = {}

    def submitted(self, task: Task) -> None:
        """Line up behind equals."""
        self._waiting.setdefault((task.gpus, _limit_ms(task)), deque()).append(task)

    def ended(self, task: Task) -> None:
        """Forget when it was to end."""
        latest = (task.started_ms + _limit_ms(task), task.index)
        del self._running[bisect_left(self._running, latest)]
        del self._places[task.index]

    def decide(self, world: World) -> None:
        """Start heads while they fit; promise the first that does not, and fill in behind it."""
        heads = [(line[0].index, key) for key, line in self._waiting.items()]
        heapq.heapify(heads)
        while heads:
            place = world.slots.find_place(heads[0][1][0])
            if place is None:
                break
            self._start_first(world, heads, place)
        if heads and world.slots.total:
            self._backfill(world, heads)

    def _backfill(self, world: World, heads: list[tuple[int, _Key]]) -> None:
        promised_ms, spare = self._promise(world, heads[0][1][0])
        if promised_ms == NEVER_MS:
            return
        heapq.heappop(heads)  # with its line: equals of the head fit no better
        while heads and world.slots.total:
            _, (gpus, limit_ms) = heads[0]
            if world.now_ms + limit_ms <= promised_ms:
                place = world.slots.find_place(gpus)
            else:
                place = world.slots.at_most(spare).find_place(gpus)
                for node, mask in place or ():
                    spare[node] -= mask.bit_count()
            if place is None:
                heapq.heappop(heads)  # room only shrinks in a pass, so its equals fail as well
            else:
                self._start_first(world, heads, place)

    def _promise(self, world: World, gpus: int) -> tuple[int, list[int]]:
        """Return when the head starts at the latest, and how many GPUs it leaves on each node."""
        then = world.slots.copy()
        for latest_ms, index in self._running:
            if latest_ms >= NEVER_MS:
                break
            then.release(self._places[index])
            place = then.find_place(gpus)
            if place is not None:
                then.take(place)
                # A job may outrun its limit; the best guess is then that it ends at once.
                return max(latest_ms, world.now_ms), then.free
        return NEVER_MS, then.free

    def _start_first(self, world: World, heads: list[tuple[int, _Key]], place: Place) -> None:
        """Start the first of the heads, and let the next of its line step forward."""
        _, key = heads[0]
        line = self._waiting[key]
        task = line.popleft()
        world.start(task, place)
        insort(self._running, (world.now_ms + _limit_ms(task), task.index))
        self._places[task.index] = place
        if line:
            heapq.heapreplace(heads, (line[0].index, key))
        else:
            heapq.heappop(heads)
            del self._waiting[key]


def _limit_ms(task: Task) -> int:
    return NEVER_MS if task.limit_ms is None else task.limit_ms
