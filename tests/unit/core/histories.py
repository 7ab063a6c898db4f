"""What may happen to a scheduler, as lists of small numbers; equal lists are equal histories.

`python -m tests.unit.core.histories SEED` prints a hash of all decisions of one of them.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scheduler.core.cluster import JobView, NodeView, QueueView, QuotaView, Shape
from scheduler.core.deltas import Delta, JobGone, JobSeen
from scheduler.core.policy import DEFAULT_POLICY, HOUR_MS, Policy
from scheduler.core.resources import Resources
from scheduler.core.states import JobState
from tests.unit.core.world import NOW_MS, World, job, node, shape

Event = tuple[int, int, int]
"""What happens, to whom, and how much; each taken modulo what there is."""

SHAPES: tuple[Shape, ...] = (
    shape(1, 1),
    shape(2, 1),
    shape(4, 1),
    shape(1, 4),
    shape(2, 4),
    shape(3, 2),
    shape(6, 1),
    shape(1, 0, 3000),
    shape(4, 0, 6000),
    shape(1, 1, 9000),
    shape(5, 1, may_spread=True),
    shape(1, 1, gpu_models=("H100",)),
    shape(2, 1, gpu_memory_mib=60_000),
    replace(shape(2, 1), per_worker=Resources(num_gpus=1, cpu_milli=1000, memory_mib=30_000)),
)
USERS = (("red", ""), ("red", "ann"), ("red", "bob"), ("blue", "cid"), ("green", "dan"))
LIMITS_MS = (None, 60_000, HOUR_MS, HOUR_MS, 24 * HOUR_MS)
ELAPSED_MS = (1, 1000, 30_000, 61_000, 600_000, HOUR_MS, 5 * HOUR_MS, 24 * HOUR_MS)
QUOTAS: tuple[tuple[QuotaView, ...], ...] = (
    (),
    (QuotaView(project="red", guaranteed_gpus=4), QuotaView(project="blue", limit_gpus=6)),
    (
        QuotaView(project="red", weight=3, limit_gpus=8),
        QuotaView(project="red", user="ann", limit_gpus=4),
        QuotaView(project="blue", guaranteed_gpus=8, may_borrow=False),
    ),
    (
        QuotaView(project="red", guaranteed_gpus=6),
        QuotaView(project="blue", guaranteed_gpus=4, limit_gpus=8),
        QuotaView(project="green", priority_max=40),
    ),
    (QuotaView(project="red", budget_gpu_ms=HOUR_MS, spent_gpu_ms=2 * HOUR_MS),),
)
POLICIES = (
    DEFAULT_POLICY,
    replace(DEFAULT_POLICY, exempt_ms=600_000, evictions_max=2),
    replace(DEFAULT_POLICY, patience_ppm=0, margin=0),
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a history begins with.

    Attributes:
        is_plain: one project, no limits, no quotas: nothing in the order depends on the clock.
        is_busy: much is submitted and little ends, so that there is much to make room for.
        is_lossy: decisions die on their way, and what is shown comes twice, late or in disorder.
    """

    policy: Policy = DEFAULT_POLICY
    num_nodes: int = 3
    is_plain: bool = False
    is_busy: bool = False
    is_lossy: bool = False


class History:
    """Lets one thing after the other happen to a world."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.world = World(policy=setup.policy, is_reliable=not setup.is_lossy)
        self.num_submitted = 0
        self._old: list[JobView] = []
        for number in range(setup.num_nodes):
            self.world.put_node(_node(number, number))
        self.world.set_rules((), (QueueView(name="default", pool="default"),))

    def let(self, event: Event) -> None:
        """Let one thing happen, and the core react."""
        self.act(event)
        _, whom, how = event
        if self.setup.is_lossy and how % 3 == 0:
            self.world.run_pass(frozenset({whom % 4, how % 7}))
        else:
            self.world.settle()

    def act(self, event: Event) -> None:
        """Let one thing happen."""
        what, whom, how = event
        actions: tuple[Callable[[int, int], None], ...] = (
            self._submit, self._submit, self._submit, self._submit, self._end, self._end,
            self._acknowledge, self._acknowledge, self._wake, self._wake, self._elapse,
            self._elapse, self._node, self._rules, self._hold, self._cancel, self._edit,
            self._measure, self._repeat, self._restart, self._fail,
        )  # fmt: skip
        if self.setup.is_busy and what % 3:
            actions = (
                self._submit, self._submit, self._submit, self._elapse, self._acknowledge,
            )  # fmt: skip
            what //= 3
        actions[what % len(actions)](whom, how)

    def quiet(self) -> None:
        """Let all that is late arrive."""
        self.world.is_reliable = True
        self.world.resync()
        self.world.settle()

    def _submit(self, whom: int, how: int) -> None:
        world, number = self.world, self.num_submitted
        self.num_submitted += 1
        project, user = ("red", "") if self.setup.is_plain else USERS[how % len(USERS)]
        view = job(
            f"j{number:03d}",
            state=JobState.PENDING if whom % 3 else JobState.QUEUED,
            submit_ms=world.now_ms,
            waiting_since_ms=world.now_ms,
            project=project,
            user=user,
            queue="other" if whom % 11 == 5 else "default",
            priority=(50, 50, 50, 50, 10, 90)[(whom + how) % 6],
            is_preemptible=(how // 7) % 5 != 0,
            limit_ms=None if self.setup.is_plain else LIMITS_MS[(how // 3) % len(LIMITS_MS)],
            shape=SHAPES[whom % len(SHAPES)],
            grace_ms=30_000,
        )
        world.submit(view)

    def _end(self, whom: int, how: int) -> None:
        if chosen := self._choose(whom, [one for one in self._rows() if one.placement is not None]):
            self.world.end(chosen.job_id)

    def _acknowledge(self, whom: int, how: int) -> None:
        stopping = [one for one in self._rows() if one.stop_reason is not None]
        if how % 3 and (chosen := self._choose(whom, stopping)):
            stopping = [chosen]
        for one in stopping:
            self.world.stop(one.job_id)

    def _wake(self, whom: int, how: int) -> None:
        wakeup_ms = self.world.wakeup_ms
        if wakeup_ms is not None:
            self.world.now_ms = max(self.world.now_ms, wakeup_ms)

    def _elapse(self, whom: int, how: int) -> None:
        self.world.now_ms += ELAPSED_MS[how % len(ELAPSED_MS)]

    def _node(self, whom: int, how: int) -> None:
        world = self.world
        number = whom % (self.setup.num_nodes + 2)
        known = world.nodes.get(f"n{number}")
        match how % 5:
            case 0 if known is not None:
                world.remove_node(known.node_id)
            case 1 if known is not None:
                world.put_node(
                    replace(known, closed_reason="" if known.closed_reason else "silent")
                )
            case 2 if known is not None:
                world.put_node(replace(known, gpu_indices=(), capacity=_CPUS_ONLY, gpu_model=""))
            case _:
                world.put_node(_node(number, how // 5))

    def _rules(self, whom: int, how: int) -> None:
        quotas = () if self.setup.is_plain else QUOTAS[whom % len(QUOTAS)]
        queues = (
            QueueView(name="default", pool="default"),
            QueueView(name="other", pool="default", is_open=how % 2 == 0),
        )
        self.world.set_rules(quotas, queues)

    def _hold(self, whom: int, how: int) -> None:
        if chosen := self._choose(whom, self._waiting()):
            if how % 3 == 0:
                self.world.change(
                    chosen.job_id,
                    not_before_ms=self.world.now_ms + 60_000,
                    not_before_reason="BeginTimeNotReached",
                )
            elif how % 3 == 1:
                self.world.change(chosen.job_id, waits_for=() if chosen.waits_for else ("j0",))
            else:
                self.world.change(chosen.job_id, is_held=not chosen.is_held)

    def _cancel(self, whom: int, how: int) -> None:
        if chosen := self._choose(whom, self._rows()):
            self.world.end(chosen.job_id)

    def _edit(self, whom: int, how: int) -> None:
        if chosen := self._choose(whom, self._waiting()):
            if how % 2 or self.setup.is_plain:
                self.world.change(chosen.job_id, priority=(10, 50, 90)[how % 3])
            else:
                self.world.change(chosen.job_id, limit_ms=LIMITS_MS[how % len(LIMITS_MS)])

    def _measure(self, whom: int, how: int) -> None:
        running = [one for one in self._rows() if one.placement is not None]
        if chosen := self._choose(whom, running):
            now_ms = self.world.now_ms
            left_ms = None if self.setup.is_plain else ELAPSED_MS[how % len(ELAPSED_MS)]
            self.world.change(
                chosen.job_id, saved_ms=now_ms, remaining_ms=left_ms, measured_ms=now_ms
            )

    def _repeat(self, whom: int, how: int) -> None:
        """What was seen is seen again, and what is to be seen comes twice and in disorder."""
        unseen = self.world.unseen
        unseen += unseen[whom % (len(unseen) + 1) :]
        if self.setup.is_lossy:
            seen = [delta for deltas, _ in self.world.log[-5:] for delta in deltas]
            jobs: list[Delta] = [one for one in unseen + seen if isinstance(one, JobSeen | JobGone)]
            others: list[Delta] = [one for one in unseen if not isinstance(one, JobSeen | JobGone)]
            random.Random(how).shuffle(jobs)
            unseen[:] = others + jobs

    def _restart(self, whom: int, how: int) -> None:
        if how % 2:
            self.world.restart()
        else:
            self.world.resync()

    def _fail(self, whom: int, how: int) -> None:
        """A job loses its places without having been asked, and is tried again."""
        running = [one for one in self._rows() if one.placement is not None]
        if chosen := self._choose(whom, running):
            self.world.stop(
                chosen.job_id,
                is_eviction=False,
                state=JobState.PENDING,
                not_before_ms=self.world.now_ms + 10_000 * (how % 2),
                not_before_reason="RetryBackoff",
            )

    def _rows(self) -> list[JobView]:
        return [self.world.jobs[key] for key in sorted(self.world.jobs)]

    def _waiting(self) -> list[JobView]:
        return [one for one in self._rows() if one.placement is None]

    def _choose(self, whom: int, among: list[JobView]) -> JobView | None:
        return among[whom % len(among)] if among else None


_CPUS_ONLY = Resources(num_gpus=0, cpu_milli=16_000, memory_mib=65_536)


def _node(number: int, kind: int) -> NodeView:
    view = node(
        f"n{number}",
        4,
        rack=f"r{number % 2}",
        capacity=Resources(num_gpus=4, cpu_milli=16_000, memory_mib=65_536),
    )
    match kind % 7:
        case 3:
            return node(f"n{number}", 0, capacity=_CPUS_ONLY)
        case 4:
            return replace(view, gpu_model="H100", gpu_memory_mib=81_920)
        case 5:
            capacity = Resources(num_gpus=4, cpu_milli=8_000, memory_mib=32_768)
            return replace(view, capacity=capacity)
        case 6:
            capacity = Resources(num_gpus=2, cpu_milli=16_000, memory_mib=65_536)
            return replace(view, capacity=capacity, gpu_indices=(1, 3))
        case _:
            return view


def make_events(seed: int, count: int) -> list[Event]:
    """Return a history of so many events."""
    chance = random.Random(seed)
    return [
        (chance.randrange(64), chance.randrange(1 << 12), chance.randrange(1 << 12))
        for _ in range(count)
    ]


def live(setup: Setup, events: Sequence[Event]) -> World:
    """Let a whole history happen."""
    history = History(setup)
    for event in events:
        history.let(event)
    return history.world


def hash_plans(world: World) -> str:
    """Return a hash of every decision."""
    return hashlib.sha256("\n".join(map(repr, world.plans)).encode()).hexdigest()


if __name__ == "__main__":
    print(hash_plans(live(Setup(), make_events(int(sys.argv[1]), 200))))
    assert NOW_MS
