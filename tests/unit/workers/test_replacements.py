"""Which killed ranks are started again while the others go on."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from trainmaster._pulse import Pulse
from workers.supervisor.assignment import Assignment
from workers.supervisor.exits import RankEnd, is_harmless
from workers.supervisor.layout import RunFolder
from workers.supervisor.memory import MemoryFacts
from workers.supervisor.ranks import Ranks
from workers.supervisor.replacing import DEATHS_MAX, FRUITLESS_MAX, Replacer, may_be_replaced

LOCAL = {"sync": {"mode": "local_sgd"}, "parallel": {"data": 3}}
KILLED = RankEnd(1, None, signal.SIGKILL, by_us=False, order=0)


@dataclass
class FakeAssignment:
    """The parts of an assignment that count here."""

    spec: dict[str, Any]
    world_size: int = 3
    interruption: dict[str, int] | None = None


@dataclass
class FakeRanks:
    """The ends of ranks, and which of them were forgotten."""

    ends: dict[int, RankEnd] = field(default_factory=dict)

    def forget(self, rank: int) -> None:
        self.ends.pop(rank)


class Setting:
    """A replacer with nothing but a folder around it."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        self.run = RunFolder(folder)
        self.run.make()
        self.ranks, self.started = FakeRanks(), list[int]()
        self.memory, self.now_s = MemoryFacts(), 1000.0
        self.replacer = Replacer(
            cast("Assignment", FakeAssignment(spec)),
            self.run,
            cast("Ranks", self.ranks),
            start_again=self.started.append,
            is_harmless=lambda end: is_harmless(end, self.memory),
            clock=lambda: self.now_s,
        )

    def end(self, *ends: RankEnd) -> list[int]:
        """Let ranks end; return those that were started again for it."""
        before = len(self.started)
        self.ranks.ends.update({end.rank: end for end in ends})
        self.replacer.replace()
        return self.started[before:]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, LOCAL)


@pytest.mark.parametrize(
    ("spec", "more", "want"),
    [
        (LOCAL, {}, True),
        ({"sync": {"mode": "parameter_server"}}, {}, True),
        ({"sync": {}}, {}, False),
        ({**LOCAL, "parallel": {"data": 2, "tensor": 2}}, {}, False),
        ({**LOCAL, "parallel": {"data": 2, "shard": 2}}, {}, False),
        ({**LOCAL, "framework": "tensorflow"}, {}, False),
        (LOCAL, {"world_size": 1}, False),
        (LOCAL, {"interruption": {"step": 3}}, False),
    ],
)
def test_ranks_may_be_replaced_where_each_is_a_replica_joined_by_servers(
    spec: dict[str, Any], more: dict[str, Any], want: bool
) -> None:
    assert may_be_replaced(cast("Assignment", FakeAssignment(spec, **more))) is want


def test_a_killed_rank_is_started_again_and_reported(setting: Setting) -> None:
    assert setting.end(KILLED) == [1]
    assert setting.ranks.ends == {}
    (line,) = setting.run.reports.read_text().splitlines()
    report = json.loads(line)
    assert report["kind"] == "rank_replaced"
    assert report["data"] == {"rank": 1, "signal": 9, "restarts": 1}
    assert setting.replacer.describe(1) == {"restarts": 1}
    assert setting.replacer.describe(0) == {}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(RankEnd(1, 1, None, by_us=False, order=0), id="an exception"),
        pytest.param(RankEnd(1, None, signal.SIGSEGV, by_us=False, order=0), id="a crash"),
        pytest.param(RankEnd(1, None, signal.SIGKILL, by_us=True, order=0), id="our own signal"),
        pytest.param(RankEnd(1, 0, None, by_us=False, order=0), id="a good end"),
    ],
)
def test_other_ends_are_left_and_keep_a_killed_one_from_being_replaced(
    setting: Setting, end: RankEnd
) -> None:
    assert setting.end(end) == []
    assert setting.end(RankEnd(2, None, signal.SIGKILL, by_us=False, order=1)) == []


def test_a_rank_that_took_too_much_memory_is_left(setting: Setting) -> None:
    setting.memory = MemoryFacts(kills=1)

    assert setting.end(KILLED) == []


def test_a_rank_that_never_takes_a_step_is_replaced_a_few_times_only(setting: Setting) -> None:
    started = [setting.end(KILLED) for _ in range(FRUITLESS_MAX)]

    assert started == [[1]] * (FRUITLESS_MAX - 1) + [[]]


def test_a_rank_that_takes_steps_is_replaced_again_and_again(setting: Setting) -> None:
    for life in range(4 * FRUITLESS_MAX):
        pulse = Pulse(str(setting.run.pulse(1)))
        if life % 2:
            pulse.note_step(7)
            pulse.note_step(8)
        assert setting.end(KILLED) == [1]
        setting.now_s += 30.0


@pytest.mark.parametrize(("between_s", "want"), [(6.0, []), (7.0, [1])])
def test_a_rank_that_is_killed_ten_times_within_a_minute_is_left(
    setting: Setting, between_s: float, want: list[int]
) -> None:
    for _ in range(DEATHS_MAX - 1):
        pulse = Pulse(str(setting.run.pulse(1)))
        pulse.note_step(7)
        pulse.note_step(8)
        assert setting.end(KILLED) == [1]
        setting.now_s += between_s
    pulse = Pulse(str(setting.run.pulse(1)))
    pulse.note_step(7)
    pulse.note_step(8)

    assert setting.end(KILLED) == want


def test_steps_of_an_earlier_life_do_not_count(setting: Setting) -> None:
    pulse = Pulse(str(setting.run.pulse(1)))
    pulse.note_step(7)
    pulse.note_step(8)

    started = [setting.end(KILLED) for _ in range(1 + FRUITLESS_MAX)]

    assert started == [[1]] * FRUITLESS_MAX + [[]]


def test_several_that_are_killed_together_all_come_back(setting: Setting) -> None:
    others = [RankEnd(rank, None, signal.SIGKILL, by_us=False, order=rank) for rank in (0, 2)]

    assert setting.end(KILLED, *others) == [1, 0, 2]
