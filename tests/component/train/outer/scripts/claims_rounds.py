"""Claims about who takes part in rounds, at one server and at several; each is one test."""

import functools
import random
import sys
from collections.abc import Callable

from trainmaster.train.outer.rounds import Member, Rounds


def started(*members: Member) -> Rounds[str]:
    rounds: Rounds[str] = Rounds(is_first_server=True, num_starters=len(members))
    for member in members:
        rounds.connect(member)
        rounds.join(member, 0)
    assert rounds.admit() == sorted(members)
    return rounds


A, B, C = (0, "a"), (1, "b"), (2, "c")


def claim_nobody_begins_before_all_have_come() -> None:
    rounds: Rounds[str] = Rounds(is_first_server=True, num_starters=2)
    rounds.connect(A)
    rounds.join(A, 0)
    assert rounds.admit() == []

    rounds.connect(B)
    rounds.join(B, 0)

    assert rounds.admit() == [A, B]


def claim_offers_are_in_the_order_of_replicas_whoever_came_first() -> None:
    rounds = started(A, B, C)
    for member in (C, A):
        rounds.offer(member, member[1], set())
    assert rounds.close() is None

    rounds.offer(B, "b", set())
    closed = rounds.close()

    assert closed is not None
    assert list(closed.offers.values()) == ["a", "b", "c"]


def claim_who_dies_is_waited_for_no_longer_and_what_it_brought_counts() -> None:
    rounds = started(A, B, C)
    rounds.offer(C, "c", set())
    rounds.lose(C)
    rounds.offer(A, "a", set())
    rounds.lose(B)

    closed = rounds.close()

    assert closed is not None
    assert list(closed.offers) == [A, C]
    assert rounds.roll == {A}


def claim_who_joins_is_counted_from_the_next_round() -> None:
    rounds = started(A, B)
    rounds.lose(B)
    again = (1, "again")
    rounds.connect(again)
    rounds.offer(A, "a", set())
    rounds.join(again, 0)
    assert rounds.admit() == []

    closed = rounds.close()
    assert closed is not None
    assert closed.admitted == [again]

    rounds.offer(A, "a", set())
    assert rounds.close() is None
    rounds.offer(again, "again", set())
    assert rounds.close() is not None


def claim_who_joins_when_nobody_is_left_begins_at_once() -> None:
    rounds = started(A)
    rounds.lose(A)
    rounds.connect(B)
    rounds.join(B, 0)

    assert rounds.admit() == [B]


class Play:
    """Members A and B go through rounds at three servers, and C joins them at some point.

    Each says everything to the first server first; what is on its way arrives in any order, but
    what one member says to one server arrives as it was said.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.servers = [Rounds[str](number == 0, 2) for number in range(3)]
        self.on_the_way: dict[tuple[Member, int], list[Callable[[], None]]] = {}
        self.waits_for: dict[Member, set[int]] = {}
        self.closed: list[list[set[Member]]] = [[], [], []]
        for each in self.servers:
            for member in (A, B, C):
                each.connect(member)
            for member in (A, B):
                each.join(member, 0)
            each.admit()
        for member in (A, B):
            self.bring(member)

    def say(self, member: Member, server: int, what: Callable[[], None]) -> None:
        self.on_the_way.setdefault((member, server), []).append(what)

    def bring(self, member: Member) -> None:
        roll = set(self.servers[0].roll or ())
        self.waits_for[member] = {0, 1, 2}
        for server, rounds in enumerate(self.servers):
            self.say(member, server, functools.partial(rounds.offer, member, "", roll))

    def join(self, member: Member) -> None:
        self.waits_for[member] = {0, 1, 2}
        self.say(member, 0, functools.partial(self.servers[0].join, member, 0))

    def answer(self, member: Member, server: int) -> None:
        self.waits_for[member].discard(server)
        if not self.waits_for[member]:
            self.bring(member)

    def let_something_arrive(self) -> None:
        ready = sorted(key for key, said in self.on_the_way.items() if said)
        member, server = self.random.choice(ready)
        self.on_the_way[member, server].pop(0)()
        rounds = self.servers[server]
        begun: list[Member] = []
        while (closed := rounds.close()) is not None:
            self.closed[server].append(set(closed.offers))
            begun += closed.admitted
            for each in closed.offers:
                self.answer(each, server)
        for each in begun + rounds.admit():
            if server == 0:
                for other in (1, 2):
                    join = self.servers[other].join
                    self.say(each, other, functools.partial(join, each, rounds.number))
            self.answer(each, server)


def claim_several_servers_count_the_same_members_in_every_round() -> None:
    for seed in range(1000):
        play = Play(seed)
        joins_after = play.random.randint(0, 5)

        while min(map(len, play.closed)) < 10:
            if C not in play.waits_for and len(play.closed[0]) >= joins_after:
                play.join(C)
            play.let_something_arrive()

        assert play.closed[0][:10] == play.closed[1][:10] == play.closed[2][:10]
        assert C in play.closed[0][9]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
