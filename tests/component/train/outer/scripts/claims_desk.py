"""Claims about where replicas that do not go in step get their pieces; each is one test."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.replicas import make_plan
from trainmaster._order import Cursor
from trainmaster.train.outer.desk import Desk
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.space import Peer

PLAN = make_plan(64, 8, 2)
NUM_REPLICAS = 3


class Worker:
    """A replica at the desk."""

    def __init__(self, desk: Desk, number: int) -> None:
        self._desk = desk
        self.answers: list[Message] = []
        self.peer = Peer(0, (number, "life"), self.answers.append)

    def say(self, operation: str, loop: int = 0, **more: Any) -> Any:
        """Return the answer, if it came at once."""
        count = len(self.answers)
        cursor = asdict(Cursor(loop=loop, order=PLAN.order))
        plan = asdict(PLAN)
        head = {"op": operation, "plan": plan, "cursor": cursor, "is_patient": True, **more}
        self.peer.is_asking = True
        self._desk.receive(self.peer, Message(head), range(NUM_REPLICAS))
        return self.heard if len(self.answers) > count else None

    @property
    def heard(self) -> Any:
        head = self.answers[-1].head
        return head["rest"] if "rest" in head else head["piece"]

    @property
    def cursor(self) -> Cursor:
        return Cursor.from_dict(self.answers[-1].head["cursor"])


def open_desk() -> tuple[Desk, list[Worker]]:
    desk = Desk(NUM_REPLICAS, lambda: 0.0)
    return desk, [Worker(desk, number) for number in range(NUM_REPLICAS)]


def claim_who_joins_a_meeting_gets_nothing_until_all_who_met_go_on() -> None:
    desk, (one, two, three) = open_desk()
    for each in (one, two, three):
        assert each.say("piece")
    desk.lose(three.peer)
    one.peer.is_asking = True
    desk.receive(one.peer, Message({"op": "hold"}), range(NUM_REPLICAS))
    while two.say("piece") is not None:
        pass
    assert one.say("piece") == two.heard == "meet"

    again = Worker(desk, 2)
    assert again.say("piece") is None
    assert one.say("piece") is None
    assert isinstance(two.say("piece"), dict)

    assert isinstance(one.heard, dict)
    assert isinstance(again.heard, dict)


def claim_a_death_in_a_meeting_does_not_hold_up_the_others() -> None:
    desk, (one, two, three) = open_desk()
    for each in (one, two, three):
        assert each.say("piece")
    one.peer.is_asking = True
    desk.receive(one.peer, Message({"op": "hold"}), range(NUM_REPLICAS))
    for each in (one, two, three):
        each.say("piece")
    assert one.heard == two.heard == three.heard == "meet"
    assert one.say("piece") is None
    assert two.say("piece") is None

    desk.lose(three.peer)

    assert isinstance(one.heard, dict)
    assert isinstance(two.heard, dict)


def claim_who_leaves_a_loop_waits_for_the_others_to_leave_it() -> None:
    _, (one, two, three) = open_desk()
    pieces = [each.say("piece") for each in (one, two, three)]
    assert one.say("leave") is None
    pieces.append(two.say("piece"))
    assert isinstance(pieces[-1], dict)
    assert two.say("leave") is None

    assert three.say("leave") == "end"

    assert one.heard == two.heard == "end"
    assert one.cursor == two.cursor == three.cursor
    # Four pieces of three in a batch: the second batch has been begun.
    assert one.cursor.step == max(piece["after"]["step"] for piece in pieces) == 2


def claim_who_stays_does_all_that_is_left() -> None:
    _, (one, two, three) = open_desk()
    done = [one.say("piece")]
    one.say("leave")
    turns = (two, three) * PLAN.steps_total * NUM_REPLICAS
    done += [each.say("piece") for each in turns if not each.peer.is_asking]
    done = [each for each in done if isinstance(each, dict)]

    assert one.heard == two.heard == three.heard == "end"
    assert sum(piece["count"] for piece in done) == 64 * 2
    assert one.cursor.loop_epoch == 2


def claim_nobody_trains_on_after_all_have_left() -> None:
    desk, (one, two, three) = open_desk()
    for each in (one, two, three):
        each.say("piece")
        each.say("leave")
    desk.lose(three.peer)

    assert Worker(desk, 2).say("piece") == "end"


def claim_a_death_lets_those_go_who_have_left() -> None:
    desk, (one, two, three) = open_desk()
    for each in (one, two, three):
        each.say("piece")
    one.say("leave")
    two.say("leave")

    desk.lose(three.peer)

    assert one.heard == two.heard == "end"


def claim_who_has_left_meets_with_those_who_go_on() -> None:
    desk, (one, two, three) = open_desk()
    for each in (one, two, three):
        each.say("piece")
    assert one.say("leave") is None
    two.peer.is_asking = True
    desk.receive(two.peer, Message({"op": "hold"}), range(NUM_REPLICAS))
    while two.say("piece") is not None:
        pass
    assert three.say("piece") == two.heard == one.heard == "meet"

    assert two.say("piece") is None
    assert three.say("piece") is None  # nobody trains into what the others are saving
    assert one.say("leave") is None

    assert isinstance(two.heard, dict)
    assert isinstance(three.heard, dict)


def claim_all_meet_when_who_has_left_wants_them_to() -> None:
    now_s = 100.0
    desk = Desk(NUM_REPLICAS, lambda: now_s)
    one, two, three = (Worker(desk, number) for number in range(NUM_REPLICAS))
    for each in (one, two, three):
        each.say("piece")
    one.say("leave", meet_in_s=5.0)
    now_s = 104.0
    for _ in range(3 * NUM_REPLICAS):  # more than a batch
        assert isinstance(two.say("piece"), dict)

    now_s = 105.0
    while two.say("piece") is not None:
        pass
    three.say("piece")

    assert one.heard == two.heard == three.heard == "meet"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
