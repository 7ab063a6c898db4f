"""Claims about what members tell those who join them; each function is one test."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

import torch

from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.handover import Handover
from trainmaster.train.outer.space import Peer
from trainmaster.train.outer.tree import flatten, unflatten


class Replica:
    """One that says something to a handover, and what it is answered."""

    def __init__(self, handover: Handover, number: int) -> None:
        self.handover = handover
        self.answers: list[Message] = []
        self.peer = Peer(0, (number, "life"), self.answers.append)

    def say(self, operation: str, *tensors: torch.Tensor, **more: Any) -> None:
        self.peer.is_asking = True
        self.handover.receive(self.peer, Message({"op": operation, **more}, list(tensors)))

    @property
    def heard(self) -> dict[str, Any] | None:
        """The head of its last answer; None while it waits."""
        if self.peer.is_asking:
            return None
        return {key: value for key, value in self.answers[-1].head.items() if key != "waited_s"}


def three() -> tuple[Handover, list[Replica], set[tuple[int, str]]]:
    """Return two members, and one that has been let in after them."""
    handover = Handover()
    replicas = [Replica(handover, number) for number in range(3)]
    handover.takers.add(replicas[2].peer.member)
    return handover, replicas, {each.peer.member for each in replicas}


def claim_one_member_tells_and_nobody_goes_on_before() -> None:
    handover, (one, two, taker), present = three()

    two.say("give")
    handover.settle(present)
    assert two.heard is None  # the taker is not ready
    taker.say("take")
    handover.settle(present)
    assert two.heard == {"wanted": True}
    one.say("give")
    handover.settle(present)
    assert one.heard is None
    state = torch.tensor([7.0])
    two.say("give", state, state="described")
    handover.settle(present)

    assert taker.heard == {"state": "described"}
    assert one.heard == two.heard == {}
    state.zero_()  # as what is said next comes into the same memory
    assert taker.answers[-1].tensors[0].item() == 7.0


def claim_if_the_member_dies_over_it_another_tells() -> None:
    handover, (one, two, taker), present = three()
    taker.say("take")
    one.say("give")
    two.say("give")
    handover.settle(present)
    assert one.heard == {"wanted": True}

    handover.lose(one.peer.member)
    handover.settle(present - {one.peer.member})

    assert two.heard == {"wanted": True}


def claim_if_the_one_that_joins_dies_the_others_go_on() -> None:
    handover, (one, two, taker), present = three()
    one.say("give")
    two.say("give")
    handover.settle(present)
    assert one.heard is None

    handover.lose(taker.peer.member)
    handover.settle(present - {taker.peer.member})

    assert one.heard == two.heard == {}


def claim_who_is_alone_waits_for_nobody() -> None:
    handover, (one, two, taker), present = three()
    taker.say("take")
    handover.settle(present)
    assert taker.heard is None

    for each in (one, two):
        handover.lose(each.peer.member)
    handover.settle({taker.peer.member})

    assert taker.heard == {}
    assert not handover.takers


def claim_who_comes_when_all_is_told_goes_on() -> None:
    handover, (one, two, taker), present = three()
    taker.say("take")
    one.say("give")
    handover.settle(present)
    one.say("give", state="described")
    handover.settle(present)

    two.say("give")
    handover.settle(present)

    assert two.heard == {}


def claim_what_schedules_hold_arrives_as_it_was() -> None:
    state = {"milestones": Counter({3: 1, 5: 2}), "best": float("inf"), "rates": [0.1, (1, "a")]}

    described, tensors = flatten(state)
    again = unflatten(described, tensors)

    assert again == state
    assert isinstance(again["milestones"], Counter)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
