"""Claims about what replicas say to each other, and who is waited for; each is one test."""

import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

import torch

from tests.component.train.outer.scripts.replicas import Training, make_plan
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.hub import Hub
from trainmaster.train.outer.joined import Seat
from trainmaster.train.outer.joining import make_joined
from trainmaster.train.outer.link import Wires
from trainmaster.train.outer.server import Server
from trainmaster.train.outer.space import Peer
from trainmaster.train.outer.talk import Talk

TOKEN = bytes(32)
LIMIT_S = 60.0


class Speaker:
    """A replica whose place in the training the test decides."""

    def __init__(self, talk: Talk, number: int, place: int) -> None:
        self.answers: list[Message] = []
        self.peer = Peer(0, (number, "life"), self.answers.append)
        self.place = place
        self._talk = talk

    def wait(self) -> None:
        """Be waiting for something else."""
        self.peer.is_asking = True

    def say(self, kind: str, *values: float) -> None:
        self.peer.is_asking = True
        head: dict[str, Any] = {"op": "talk", "kind": kind}
        tensors = [torch.tensor(values)] if kind == "sum" else []
        if kind == "maximum":
            head["values"] = list(values)
        self._talk.offer(self.peer, Message(head, tensors), self.place)

    @property
    def heard(self) -> float | str | None:
        if not self.answers:
            return None
        head, tensors = self.answers[-1].head, self.answers[-1].tensors
        return head["error"] if "error" in head else float(tensors[0].sum())


def meet(*places: int) -> tuple[Any, list[Speaker]]:
    """Return what settles a talk, and its speakers."""
    talk = Talk(lambda: 0.0)
    speakers = [Speaker(talk, number, place) for number, place in enumerate(places)]
    place_of = {each.peer: each.place for each in speakers}

    def settle() -> None:
        talk.settle([each.peer for each in speakers], place_of.__getitem__)

    return settle, speakers


def claim_who_could_come_is_waited_for() -> None:
    settle, (one, two) = meet(3, 3)
    one.say("sum", 1.0)
    settle()
    assert one.answers == []

    two.say("sum", 2.0)
    settle()

    assert (one.heard, two.heard) == (3.0, 3.0)


def claim_who_waits_for_something_else_is_not() -> None:
    settle, (one, two) = meet(3, 3)
    one.say("sum", 1.0)
    two.wait()

    settle()

    assert one.heard == 1.0


def claim_who_is_further_is_not_waited_for_but_waits_itself() -> None:
    settle, (one, two, ahead) = meet(3, 3, 4)
    one.say("sum", 1.0)
    two.say("sum", 2.0)
    settle()
    assert (one.heard, two.heard) == (3.0, 3.0)

    ahead.say("sum", 100.0)
    settle()
    assert ahead.heard is None
    one.wait()
    two.wait()
    settle()

    assert ahead.heard == 100.0


def claim_who_is_behind_is_waited_for_by_those_who_are_further() -> None:
    settle, (ahead, behind) = meet(4, 3)
    ahead.say("sum", 1.0)

    settle()

    assert ahead.heard is None
    assert behind.heard is None


def claim_replicas_that_call_different_things_are_both_told_which() -> None:
    for other, name in (
        (("maximum", 5.0), "the maximum of 1 numbers"),
        (("sum", 5.0, 6.0), "the sum of tensors of 2 numbers"),
    ):
        settle, (one, two) = meet(1, 1)
        one.say("sum", 1.0)
        two.say(*other)

        settle()

        assert one.heard == two.heard
        said = f"replica 0 calls the sum of tensors of 1 numbers, replica 1 {name}"
        assert str(one.heard).startswith(said), one.heard
        assert "every rank must call the same" in str(one.heard)


def claim_nobody_is_answered_before_all_who_begin_have_called() -> None:
    hub = Hub(0, 2, lambda: 0.0)
    answers: list[Message] = []
    first = hub.connect(0, 0, "a", answers.append)
    question = Message({"op": "talk", "kind": "maximum", "values": [1]})

    hub.receive(first, question)
    assert answers == []
    second = hub.connect(0, 1, "b", answers.append)
    hub.receive(second, question)

    assert [each.head["values"] for each in answers] == [[1], [1]]


def claim_a_death_ends_the_wait() -> None:
    hub = Hub(0, 2, lambda: 0.0)
    answers: list[Message] = []
    first, second = (hub.connect(0, number, "a", answers.append) for number in range(2))
    hub.receive(first, Message({"op": "talk", "kind": "maximum", "values": [1]}))
    assert answers == []

    hub.lose(second)

    assert [each.head["values"] for each in answers] == [[1]]


def evaluate_each_epoch(num_servers: int, staleness: int | None, seed: int) -> list[list[float]]:
    """Return, of each of four replicas, how many it counted at the end of each epoch."""
    num_replicas, num_epochs = 4, 6
    addresses = []
    for number in range(num_servers):
        listener = socket.create_server(("127.0.0.1", 0))
        addresses.append(listener.getsockname())
        server = Server(listener, TOKEN, number, num_replicas)
        threading.Thread(target=server.run, daemon=True).start()
    sync = {"mode": "parameter_server", "staleness": staleness, "servers": num_servers}
    counts: list[list[float]] = [[] for _ in range(num_replicas)]

    def train(replica: int) -> None:
        draw = random.Random(f"{seed}/{replica}")
        link = Wires(addresses, TOKEN, replica, 0)
        outer = make_joined(sync, link, Seat(replica, num_replicas))
        plan = make_plan(64, 8, num_epochs)
        training = Training(outer, replica, num_replicas, "sgd", plan)
        training.at_epoch_end = lambda: counts[replica].append(float(outer.sum(torch.ones(1))))
        training.hand_over()
        for _ in training.steps():
            time.sleep(0.004 * draw.random() * (1 + replica))
        outer.close()

    threads = [
        threading.Thread(target=train, args=(number,), daemon=True)
        for number in range(num_replicas)
    ]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + LIMIT_S
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "they wait for each other for ever"
    return counts


def claim_at_the_end_of_an_epoch_everybody_is_counted_whoever_waits_at_the_gate() -> None:
    for num_servers, staleness, seed in ((1, 1, 0), (1, 1, 1), (2, 1, 2), (2, 2, 3), (1, None, 4)):
        counts = evaluate_each_epoch(num_servers, staleness, seed)

        assert counts == [[4.0] * 6] * 4, (num_servers, staleness, counts)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
