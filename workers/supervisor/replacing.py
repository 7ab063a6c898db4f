"""Ranks that are killed are started again where the others go on without them.

That is so where each replica is one rank and `sync.mode` joins replicas by servers: these outlive
their rank, and who joins late finds there where the others are (docs/decisions/0017). Everywhere
else a dead rank leaves its peers in a collective that never ends, and the attempt ends.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from workers.supervisor.assignment import Assignment
from workers.supervisor.exits import RankEnd, name_signal
from workers.supervisor.layout import RunFolder
from workers.supervisor.pulse import find_pulse
from workers.supervisor.ranks import Ranks
from workers.supervisor.reports import add_report

# A rank that dies so often in a row without a step of its own will not get any further.
FRUITLESS_MAX = 3
# Nor will one that somebody kills as often as this.
DEATHS_MAX, DEATHS_WITHIN_S = 10, 60.0


def may_be_replaced(assignment: Assignment) -> bool:
    """Whether the ranks of an attempt go on when one of them is killed."""
    sync, parallel = assignment.spec.get("sync") or {}, assignment.spec.get("parallel") or {}
    replica_size = 1
    for name in ("shard", "tensor", "pipeline"):
        replica_size *= int(parallel.get(name) or 1)
    return (
        (sync.get("mode") or "allreduce") != "allreduce"
        and replica_size == 1
        and assignment.world_size > 1
        and assignment.spec.get("framework") in (None, "torch")
        and assignment.interruption is None  # killed on purpose, to be seen resuming
    )


class Replacer:
    """Starts the killed ranks of one attempt on this node again.

    Attributes:
        restarts: how often each rank was started again, by rank.
    """

    def __init__(
        self, assignment: Assignment, run: RunFolder, ranks: Ranks,
        *, start_again: Callable[[int], None], is_harmless: Callable[[RankEnd], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`is_harmless` tells whether an end was neither the program's fault nor its memory's."""
        self._is_possible = may_be_replaced(assignment)
        self._run, self._ranks = run, ranks
        self._start_again, self._is_harmless = start_again, is_harmless
        self._clock = clock
        self._fruitless: dict[int, int] = {}
        self._deaths: dict[int, deque[float]] = {}
        self.restarts: dict[int, int] = {}

    def replace(self) -> None:
        """Start those again that have been killed, unless the attempt ends anyway.

        It does where a rank has ended by itself: its program is over, or its fault.
        """
        ends = list(self._ranks.ends.values())
        if not ends or not self._is_possible:
            return
        fruitless = {end.rank: self._count_fruitless(end.rank) for end in ends}
        if not all(self._may_go_on(end, fruitless[end.rank]) for end in ends):
            return
        self._fruitless.update(fruitless)
        for end in ends:
            self._replace(end)

    def _may_go_on(self, end: RankEnd, num_fruitless: int) -> bool:
        if not self._is_harmless(end):
            return False
        deaths = self._deaths.get(end.rank) or deque[float]()
        is_hunted = len(deaths) == DEATHS_MAX - 1 and self._clock() - deaths[0] < DEATHS_WITHIN_S
        return not is_hunted and num_fruitless < FRUITLESS_MAX

    def _count_fruitless(self, rank: int) -> int:
        """Return how often a rank has died in a row, this time included, before its first step."""
        pulse = find_pulse(self._run.pulse(rank))
        has_stepped = pulse is not None and pulse.steps_taken > 0
        return 0 if has_stepped else self._fruitless.get(rank, 0) + 1

    def _replace(self, end: RankEnd) -> None:
        rank = end.rank
        self._deaths.setdefault(rank, deque(maxlen=DEATHS_MAX - 1)).append(self._clock())
        self.restarts[rank] = self.restarts.get(rank, 0) + 1
        data: dict[str, Any] = {
            "rank": rank, "signal": end.signal, "restarts": self.restarts[rank],
        }  # fmt: skip
        message = (
            f"rank {rank} was killed by {name_signal(end.signal or 0)}, not sent by Trainmaster: "
            "it is started again and joins the others, which go on"
        )
        try:
            self._run.pulse(rank).unlink(missing_ok=True)
            add_report(self._run.reports, "rank_replaced", message, data)
        except OSError as error:
            sys.stderr.write(f"a replacement is not reported: {error}\n")
        self._ranks.forget(rank)
        self._start_again(rank)

    def describe(self, rank: int) -> Mapping[str, int]:
        """Return what is to be told of a rank."""
        return {"restarts": self.restarts[rank]} if rank in self.restarts else {}
