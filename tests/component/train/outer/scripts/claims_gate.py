"""Claims about who may read when, in simulated time; each function is one test."""

import heapq
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.mutations import mutate
from trainmaster.train.outer.gate import Gate

NUM_READS = 100_000


def simulate(staleness: int | None, *, num_reads: int, seed: int = 0) -> "Trace":
    """Return what happens when five replicas push and read, one of them five times slower."""
    gate: Gate[int] = Gate(staleness)
    draw = random.Random(seed)
    trace = Trace()
    due: list[tuple[float, int]] = []
    waiting: set[int] = set()
    now = 0.0

    def compute(replica: int) -> None:
        trace.read(replica)
        gate.read(replica)
        took = draw.uniform(0.5, 1.5) * (5 if replica == 4 else 1)
        heapq.heappush(due, (now + took, replica))

    for replica in range(5):
        gate.enter(replica)
    for replica in range(5):
        compute(replica)
    while trace.num_reads < num_reads:
        now, replica = heapq.heappop(due)
        trace.push(replica)
        gate.push(replica)
        waiting.add(replica)
        for each in sorted(waiting):
            if gate.may_read(each):
                waiting.discard(each)
                compute(each)
    trace.gaps_said = gate.gaps
    return trace


class Trace:
    """Counts pushes and gaps by itself: knows nothing of the gate."""

    def __init__(self) -> None:
        self.pushes = [0] * 5
        self.gaps: Counter[int] = Counter()
        self.gaps_said: Counter[int] = Counter()
        self.num_reads = 0

    def push(self, replica: int) -> None:
        self.pushes[replica] += 1

    def read(self, replica: int) -> None:
        self.num_reads += 1
        self.gaps[self.pushes[replica] - min(self.pushes)] += 1


def claim_no_read_is_further_ahead_than_the_bound_and_the_bound_is_reached() -> None:
    for staleness in (0, 1, 3, 8):
        trace = simulate(staleness, num_reads=NUM_READS)

        assert max(trace.gaps) == staleness
        assert trace.gaps == trace.gaps_said
        assert trace.num_reads >= NUM_READS


def claim_with_a_bound_of_0_all_go_in_step() -> None:
    trace = simulate(0, num_reads=10_000)

    assert set(trace.gaps) == {0}
    assert max(trace.pushes) - min(trace.pushes) <= 1


def claim_without_a_bound_the_fast_are_five_times_as_far() -> None:
    trace = simulate(None, num_reads=10_000)

    assert 4.5 < trace.pushes[0] / trace.pushes[4] < 5.5


def claim_a_gate_that_opens_one_too_far_would_be_seen() -> None:
    mutate("open the gate one too far")

    assert max(simulate(3, num_reads=10_000).gaps) == 4


def claim_a_gate_that_opens_one_too_late_would_be_seen() -> None:
    mutate("close the gate one too early")

    assert max(simulate(3, num_reads=10_000).gaps) == 2


def claim_who_has_left_holds_nobody_up_and_who_comes_is_one_of_the_slowest() -> None:
    gate: Gate[str] = Gate(1)
    for _ in range(4):
        gate.push("a")
    gate.enter("b")
    gate.push("a")
    assert gate.may_read("a")
    gate.push("a")
    assert not gate.may_read("a")

    gate.leave("b")

    assert gate.may_read("a")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
