"""Who holds the GPUs when only the order of the jobs counts. Pure.

Jobs take places in order as if the cluster were empty, and stay where they are when they can: a
job that runs keeps its place unless one before it in the order needs it. One that has to start
looks for GPUs that nobody holds first, and takes a running job's only when there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.sim.baselines.replay import Task
from scheduler.sim.slots import Place, Slots


@dataclass(slots=True)
class Choice:
    """What changes; a job in both gives up its place for another one.

    Attributes:
        started: places by index of the job.
    """

    evicted: list[Task] = field(default_factory=list)
    started: dict[int, Place] = field(default_factory=dict)


def choose_places(order: Iterable[Task], running: Mapping[int, Task], slots: Slots) -> Choice:
    """Return who has to go and who starts where.

    Args:
        order: all jobs, who comes first first; read only as far as there are GPUs.
        running: those of them that hold places now, by index.
        slots: the free GPUs now.
    """
    choice = Choice()
    idle = slots.copy()  # held by nobody, and given to nobody here
    open_ = slots.copy()  # not given to anybody here
    for task in running.values():
        open_.release(_place_of(task))
    undecided = dict(running)
    smallest_failed = 1 << 30
    for task in order:
        if open_.total == 0 or (smallest_failed == 1 and not undecided):
            break
        holds = undecided.pop(task.index, None) is not None
        if holds and open_.holds(_place_of(task)):
            open_.take(_place_of(task))
            continue
        if holds:
            choice.evicted.append(task)
            _return_what_is_left(idle, open_, task)
        if task.gpus >= smallest_failed:
            continue
        place = idle.find_place(task.gpus) or open_.find_place(task.gpus)
        if place is None:
            smallest_failed = task.gpus
            continue
        open_.take(place)
        _take_what_is_idle(idle, place)
        choice.started[task.index] = place
    choice.evicted.extend(task for task in undecided.values() if not open_.holds(_place_of(task)))
    return choice


def _place_of(task: Task) -> Place:
    assert task.place is not None, f"job {task.index} does not run"
    return task.place


def _return_what_is_left(idle: Slots, open_: Slots, task: Task) -> None:
    """Count as idle what an evicted job held and nobody was given."""
    left = tuple((node, mask & open_.masks[node]) for node, mask in _place_of(task))
    idle.release(left)


def _take_what_is_idle(idle: Slots, place: Place) -> None:
    idle.take(tuple((node, mask & idle.masks[node]) for node, mask in place))
