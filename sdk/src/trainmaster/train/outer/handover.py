"""What the members of a space know and the server does not, for a replica that joins them.

Schedules above all: they are the script's own, the same on all replicas, and their numbers reach
the servers. A member that takes part hands them over at the end of its step, before anybody goes
on; if it dies over that, another does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.rounds import Member
    from trainmaster.train.outer.space import Peer


class Handover:
    """Those who take, and those who can give.

    Attributes:
        takers: who has joined and has not been given anything yet; it says "take" when it is ready.
    """

    def __init__(self) -> None:
        self.takers: set[Member] = set()
        self._taking: dict[Member, Peer] = {}
        self._giving: dict[Member, Peer] = {}
        self._bringing: Member | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for what a member is to say."""
        return bool(self._taking)

    def receive(self, peer: Peer, message: Message) -> None:
        """Hear a "take"; or a "give", which is empty until it is answered that it is wanted."""
        if message.head["op"] == "take":
            self._taking[peer.member] = peer
        elif "state" in message.head:
            self._deliver(message)
            peer.answer({})
        else:
            self._giving[peer.member] = peer

    def lose(self, member: Member) -> None:
        """A replica is gone."""
        self.takers.discard(member)
        self._taking.pop(member, None)
        self._giving.pop(member, None)
        if self._bringing == member:
            self._bringing = None

    def settle(self, present: set[Member]) -> None:
        """Answer everybody who can be answered; `present` is who is there and takes part."""
        if self._taking and not present - self.takers:
            for member, peer in self._taking.items():  # nobody is left who could tell
                self.takers.discard(member)
                peer.answer({})
            self._taking.clear()
        if not self.takers:
            for peer in self._giving.values():
                peer.answer({})
            self._giving.clear()
        elif self._giving and self._bringing is None and self.takers == self._taking.keys():
            self._bringing = min(self._giving)
            self._giving.pop(self._bringing).answer({"wanted": True})

    def _deliver(self, message: Message) -> None:
        """Give everybody who waits what a member has brought."""
        # Copied: what the member says next comes into the same memory.
        tensors = [tensor.clone() for tensor in message.tensors]
        for member, peer in self._taking.items():
            self.takers.discard(member)
            peer.answer({"state": message.head["state"]}, tensors)
        self._taking.clear()
        self._bringing = None
