"""Who takes part in the rounds, and when a round is complete. Pure.

A member is a replica in one life: (number, name of the life). A replica that died and was started
again is another member, so that what is still under way from the first cannot be taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Member = tuple[int, str]
Offer = TypeVar("Offer")


@dataclass(frozen=True)
class Closed(Generic[Offer]):
    """A round that is over.

    Attributes:
        number: of the round, from 1.
        offers: what each member brought, in the order of replicas.
        admitted: who takes part from the next round on.
    """

    number: int
    offers: dict[Member, Offer]
    admitted: list[Member]


@dataclass
class Rounds(Generic[Offer]):
    """One sequence of rounds.

    A round is complete when everybody on the roll has brought something or is gone. Who joins
    is not waited for until the round under way is over, and begins with what that leaves.

    The first server keeps the roll. At another, each offer names the roll of its round, as the
    first told it: all servers then wait for the same members, though news reach them in
    different order.

    Attributes:
        roll: who is waited for; None before all that start have come, or before we are told.
        number: rounds closed so far.
    """

    is_first_server: bool
    num_starters: int
    roll: set[Member] | None = None
    number: int = 0
    _present: set[Member] = field(default_factory=set)
    _joining: dict[Member, int] = field(default_factory=dict)
    _offers: dict[Member, Offer] = field(default_factory=dict)

    def connect(self, member: Member) -> None:
        """A member is there; nobody waits for it yet."""
        self._present.add(member)

    def lose(self, member: Member) -> None:
        """A member is gone; what it has brought to the round under way still counts."""
        self._present.discard(member)
        self._joining.pop(member, None)
        if self.is_first_server and self.roll is not None:
            self.roll.discard(member)

    def join(self, member: Member, after: int) -> None:
        """A member wants to take part once round `after` is over, as the first server told it."""
        self._joining[member] = after

    def admit(self, *, at_once: bool = False) -> list[Member]:
        """Return who begins now rather than when a round closes.

        At the start all begin together. Later who finds nobody, or with `at_once` anybody.
        """
        if not self.is_first_server:
            nobody = not self._offers and not (self._present & (self.roll or set()))
            ready = [
                member
                for member, after in sorted(self._joining.items())
                if self.number >= after or nobody
            ]
            self.number = max([self.number, *(self._joining[member] for member in ready)])
        elif self.roll is None:
            have_all_come = len(self._joining) >= self.num_starters
            ready = sorted(self._joining) if have_all_come else []
        else:
            ready = sorted(self._joining) if at_once or not (self.roll or self._offers) else []
        for member in ready:
            del self._joining[member]
        if ready:
            self.roll = (self.roll or set()) | set(ready)
        return ready

    def offer(self, member: Member, value: Offer, roll: set[Member]) -> None:
        """A member brings its part of the round under way, and names whom it was told to expect."""
        self._offers[member] = value
        if not self.is_first_server:
            self.roll = roll

    def close(self, *, may_admit: bool = True) -> Closed[Offer] | None:
        """Return the round under way if it is complete, and begin the next."""
        later = {member for member, after in self._joining.items() if after > self.number}
        waited_for = (self.roll or set()) & self._present - later
        if not self._offers or not waited_for <= self._offers.keys():
            return None
        offers = dict(sorted(self._offers.items()))
        self._offers.clear()
        self.number += 1
        admitted: list[Member] = []
        if self.is_first_server and may_admit:
            admitted = sorted(self._joining)
            self._joining.clear()
            self.roll = {*(self.roll or ()), *admitted}
        return Closed(self.number, offers, admitted)
