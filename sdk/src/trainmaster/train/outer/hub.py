"""One server: takes what replicas say, one at a time, and answers when it can. Knows no sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainmaster.train.outer.anchored import AnchoredSpace
from trainmaster.train.outer.desk import Desk
from trainmaster.train.outer.served import ServedSpace
from trainmaster.train.outer.space import Peer, Space
from trainmaster.train.outer.talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.space import Clock

SPACES: dict[str, type[Space]] = {"anchored": AnchoredSpace, "served": ServedSpace}


class Hub:
    """All that a server keeps: a space and a talk for each slot, and the desk that gives out data.

    Attributes:
        peers: who is connected, by slot and number of the replica.
    """

    def __init__(self, server: int, num_replicas: int, clock: Clock) -> None:
        self._server, self._num_replicas, self._clock = server, num_replicas, clock
        self.peers: dict[tuple[int, int], Peer] = {}
        self._have_come: set[tuple[int, int]] = set()
        self._spaces: dict[int, Space] = {}
        self._talks: dict[int, Talk] = {}
        self._desk = Desk(num_replicas, clock)

    def connect(self, slot: int, replica: int, life: str, send: Callable[[Message], None]) -> Peer:
        """A replica is there; if an earlier life of it seems to be, too, that one is gone."""
        if (slot, replica) in self.peers:
            self.lose(self.peers[slot, replica])
        peer = Peer(slot, (replica, life), send)
        self.peers[slot, replica] = peer
        self._have_come.add(peer.key)
        if slot in self._spaces:
            self._spaces[slot].connect(peer)
        return peer

    def receive(self, peer: Peer, message: Message) -> None:
        """Take what a replica says.

        Raises:
            OutOfStep: it cannot be meant; the server goes on without that replica.
        """
        peer.asked_at_s = self._clock()
        peer.is_asking = True
        operation = message.head["op"]
        if operation == "begin":
            self._space(peer, message.head).begin(peer, message)
        elif operation == "talk":
            self._talk(peer.slot).offer(peer, message, self._place_of(peer))
        elif operation in ("piece", "hold", "leave"):
            present = [each.member[0] for each in self._members(peer.slot)]
            self._desk.receive(peer, message, present)
            if self._desk.cursor is not None:
                self._spaces[peer.slot].come_to(self._desk.cursor)
        elif operation in ("take", "give"):
            self._spaces[peer.slot].hand_over(peer, message)
        else:
            self._spaces[peer.slot].handle(peer, message)
        self._settle_talk(peer.slot)

    def lose(self, peer: Peer) -> None:
        """A replica is gone."""
        if self.peers.get(peer.key) is not peer:
            return
        del self.peers[peer.key]
        peer.is_asking, peer.is_gone = False, True
        self._talk(peer.slot).lose(peer)
        if peer.slot in self._spaces:
            self._spaces[peer.slot].lose(peer)
        self._desk.lose(peer)
        self._settle_talk(peer.slot)

    def find_missing(self) -> list[int]:
        """Return the replicas that are not there, and without which the others cannot begin."""
        waiting = {slot for slot, _ in self.peers if not self._has_begun(slot)}
        return [
            number
            for number in range(self._num_replicas)
            if any((slot, number) not in self.peers for slot in waiting)
        ]

    def fail_all(self, error: Exception) -> None:
        """Tell everybody who waits that it is in vain."""
        for peer in self.peers.values():
            if peer.is_asking:
                peer.fail(error)

    def _members(self, slot: int) -> list[Peer]:
        return [peer for (each, _), peer in self.peers.items() if each == slot]

    def _space(self, peer: Peer, head: dict[str, Any]) -> Space:
        if peer.slot not in self._spaces:
            described = head["described"]
            space = SPACES[described["space"]](
                described, self._server, self._num_replicas, self._clock
            )
            self._spaces[peer.slot] = space
            for each in self._members(peer.slot):
                space.connect(each)
        return self._spaces[peer.slot]

    def _has_begun(self, slot: int) -> bool:
        return slot in self._spaces and self._spaces[slot].rounds.roll is not None

    def _place_of(self, peer: Peer) -> int:
        """Return where in the training a replica is, as far as that tells who can meet.

        0 before it takes part; 1 with no piece of the data under way, as always where all go in
        step; else 2 and the epoch of its piece.
        """
        space = self._spaces.get(peer.slot)
        if space is None or peer.member not in (space.rounds.roll or ()):
            return 0
        epoch = self._desk.epoch_of(peer)
        return 1 if epoch is None else 2 + epoch

    def _settle_talk(self, slot: int) -> None:
        have_come = sum(each == slot for each, _ in self._have_come)
        # Before the beginning some may not have called yet: nobody is to talk without them.
        if self._has_begun(slot) or have_come >= self._num_replicas:
            self._talk(slot).settle(self._members(slot), self._place_of)

    def _talk(self, slot: int) -> Talk:
        return self._talks.setdefault(slot, Talk(self._clock))
