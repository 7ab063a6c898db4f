"""The event loop of the baselines: jobs come, are served and end in virtual time.

A policy is asked once at each instant at which something happened, after all that happened. It
starts and evicts jobs through the `World`; an evicted job loses nothing but the time to resume.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from scheduler.sim.outcome import Outcome, Run
from scheduler.sim.slots import Place, Slots
from scheduler.sim.trace import Cluster, TraceJob

Progress = Callable[[int, int], None]
"""Told how many of how many jobs have ended."""


class Task:
    """A job on its way."""

    __slots__ = (
        "duration_ms",
        "end_ms",
        "gpus",
        "index",
        "limit_ms",
        "place",
        "resume_ms",
        "served_ms",
        "started_ms",
        "submit_ms",
    )

    def __init__(self, index: int, job: TraceJob) -> None:
        self.index = index
        self.gpus = job.gpus
        self.submit_ms = job.submit_ms
        self.duration_ms = job.duration_ms
        self.limit_ms = job.limit_ms
        self.served_ms = 0  # by the runs that have ended
        self.place: Place | None = None
        self.started_ms = -1
        self.resume_ms = 0
        self.end_ms = -1

    def attained_ms(self, now_ms: int) -> int:
        """Return how long it has been served in all."""
        if self.place is None:
            return self.served_ms
        return self.served_ms + max(0, now_ms - self.started_ms - self.resume_ms)

    def remaining_ms(self, now_ms: int) -> int:
        """Return how long it still has to be served: what only an oracle knows."""
        return self.duration_ms - self.attained_ms(now_ms)


class World:
    """What a policy sees and acts on."""

    def __init__(self, outcome: Outcome, resume_ms: int) -> None:
        self.now_ms = 0
        self.slots = Slots(outcome.cluster)
        self._outcome = outcome
        self._resume_ms = resume_ms
        self._ends: list[tuple[int, int, Task]] = []

    def start(self, task: Task, place: Place) -> None:
        """Give a waiting job its place."""
        assert task.place is None, f"job {task.index} already runs"
        self.slots.take(place)
        is_resumed = task.started_ms >= 0
        task.place = place
        task.started_ms = self.now_ms
        task.resume_ms = self._resume_ms if is_resumed else 0
        task.end_ms = self.now_ms + task.resume_ms + task.duration_ms - task.served_ms
        heapq.heappush(self._ends, (task.end_ms, task.index, task))

    def evict(self, task: Task) -> None:
        """Take a running job's place away."""
        self._stop(task, is_last=False)

    def next_end_ms(self) -> int | None:
        """Return when the next job ends if nothing happens before."""
        ends = self._ends
        while ends and (ends[0][2].place is None or ends[0][2].end_ms != ends[0][0]):
            heapq.heappop(ends)
        return ends[0][0] if ends else None

    def end_due(self) -> list[Task]:
        """End the jobs that end now, and return them."""
        ended = []
        while self.next_end_ms() == self.now_ms:
            _, _, task = heapq.heappop(self._ends)
            self._stop(task, is_last=True)
            ended.append(task)
        return ended

    def _stop(self, task: Task, *, is_last: bool) -> None:
        assert task.place is not None, f"job {task.index} does not run"
        self.slots.release(task.place)
        run = Run(task.index, task.started_ms, self.now_ms, task.resume_ms, task.place, is_last)
        self._outcome.runs.append(run)
        task.served_ms += run.service_ms
        task.place = None


class Baseline(ABC):
    """A policy; keeps the order of what waits and runs in its own way."""

    @abstractmethod
    def submitted(self, task: Task) -> None:
        """A job has come."""

    @abstractmethod
    def ended(self, task: Task) -> None:
        """A running job has ended; its place is free."""

    @abstractmethod
    def decide(self, world: World) -> int | None:
        """Start and evict; return when to be asked again even if nothing happens."""


def replay_baseline(
    jobs: Sequence[TraceJob],
    cluster: Cluster,
    policy: Baseline,
    *,
    resume_ms: int,
    progress: Progress = lambda ended, total: None,
) -> Outcome:
    """Replay jobs, which are in submit order and fit on the cluster, until all have ended."""
    outcome = Outcome(jobs=tuple(jobs), cluster=cluster)
    world = World(outcome, resume_ms)
    tasks = [Task(index, job) for index, job in enumerate(jobs)]
    num_submitted = num_ended = 0
    wakeup_ms: int | None = None
    while num_ended < len(tasks):
        instants = [at for at in (wakeup_ms, world.next_end_ms()) if at is not None]
        if num_submitted < len(tasks):
            instants.append(tasks[num_submitted].submit_ms)
        world.now_ms = min(instants)
        for task in world.end_due():
            policy.ended(task)
            num_ended += 1
            progress(num_ended, len(tasks))
        while num_submitted < len(tasks) and tasks[num_submitted].submit_ms <= world.now_ms:
            policy.submitted(tasks[num_submitted])
            num_submitted += 1
        wakeup_ms = policy.decide(world)
        assert wakeup_ms is None or wakeup_ms > world.now_ms, "a wake-up lies ahead"
        outcome.num_passes += 1
    return outcome
