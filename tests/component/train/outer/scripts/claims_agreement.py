"""Claims about when replicas agree on something, also with one that joined; each is one test."""

import itertools
import sys
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from trainmaster.run import Run
from trainmaster.train.agreement import Agreement
from trainmaster.train.modes import choose_synchronization
from trainmaster.train.synchronization import UnsupportedMode

EVERY = 4


class Group:
    """Replicas in local rounds, as one of them sees them; notes at which steps it asks."""

    def __init__(self, *, in_step: bool = True, found: int | None = None) -> None:
        self.in_step, self.found_step, self.joined_step = in_step, found, found
        self.rank, self.size = 1, 2
        self.asked: list[list[int]] = []
        self.calls = 0
        self.wish_of_others = 0
        self.is_meeting = False

    def may_meet(self, step: int) -> bool:
        return step % EVERY == 0 if self.in_step else self.is_meeting

    def want_to_meet(self) -> None:
        self.calls += 1

    def maximum(self, values: list[int]) -> list[int]:
        self.asked.append(list(values))
        wish = max(values[2], self.wish_of_others)
        return [values[0], values[1], wish, 1000]  # not before a thousand steps from now


def agreement(
    group: Group,
    *,
    every_steps: int | None = None,
    wants_stop: bool = False,
    heard_at: Collection[int] = (),
) -> Any:
    """`heard_at`: looks, from 1, at which this replica hears that a checkpoint is wanted."""
    looks = itertools.count(1)
    run: Any = SimpleNamespace(
        description={"checkpoint": {"every_steps": every_steps}},
        should_stop=lambda: wants_stop,
        checkpoint_requested=lambda: next(looks) in heard_at,
    )
    accounting: Any = SimpleNamespace(offer=lambda: (), take=lambda _: None)
    any_group: Any = group
    return Agreement(run, any_group, accounting, 0, lambda: False)


def claim_all_ask_where_one_that_joined_meets_them_first() -> None:
    """It asks there, for it cannot know when the others do."""
    member, newcomer = Group(), Group(found=10)
    ours, its = agreement(member), agreement(newcomer)
    for step in range(1, 11):
        ours.ask(step, is_forced=False)
    assert len(member.asked) == 1
    member.joined_step = 10

    for step in range(11, 17):
        ours.ask(step, is_forced=False)
        its.ask(step, is_forced=False)
        assert len(member.asked) - 1 == len(newcomer.asked), step

    assert len(newcomer.asked) == 1


def claim_who_joined_saves_where_the_others_do() -> None:
    for found in (8, 9, 11, 12):
        member, newcomer = Group(), Group(found=found)
        ours, its = agreement(member, every_steps=6), agreement(newcomer, every_steps=6)
        for step in range(1, found + 1):
            ours.ask(step, is_forced=False)
        member.joined_step = found

        for step in range(found + 1, 40):
            assert ours.ask(step, is_forced=False) == its.ask(step, is_forced=False), step


def claim_who_is_at_a_meeting_does_not_call_for_another() -> None:
    group = Group(in_step=False)
    ours = agreement(group, wants_stop=True)
    ours.ask(1, is_forced=False)
    assert group.calls == 1

    group.is_meeting = True
    assert ours.ask(2, is_forced=False).stop

    assert group.calls == 1
    fresh = Group(in_step=False)
    fresh.is_meeting = True
    agreement(fresh, wants_stop=True).ask(1, is_forced=False)
    assert fresh.calls == 0


def claim_a_wish_is_granted_once_though_some_hear_it_after_the_meeting() -> None:
    group = Group()
    group.wish_of_others = 1
    ours = agreement(group, heard_at={2, 3})
    assert ours.ask(EVERY, is_forced=True).save
    group.wish_of_others = 0

    late, another, none = (ours.ask(n * EVERY, is_forced=True).save for n in (2, 3, 4))

    assert (late, another, none) == (False, True, False)


def claim_a_compression_that_a_mode_does_not_have_is_refused_with_those_it_has() -> None:
    sync = {"mode": "parameter_server", "staleness": 0, "compression": "int4"}
    said = ""
    try:
        choose_synchronization(Run({"sync": sync}, {}), None)
    except UnsupportedMode as error:
        said = str(error)

    assert "sync.compression = int4 with sync.mode = parameter_server" in said, said
    assert said.endswith("name one of none, fp16, bf16, int8"), said


if __name__ == "__main__":
    globals()[sys.argv[1]]()
