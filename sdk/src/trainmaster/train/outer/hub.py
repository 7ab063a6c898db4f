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
        has_had_peers: whether anybody ever was.
    """

    def __init__(self, server: int, num_replicas: int, clock: Clock) -> None:
        self._server, self._num_replicas, self._clock = server, num_replicas, clock
        self.peers: dict[tuple[int, int], Peer] = {}
        self._spaces: dict[int, Space] = {}
        self._talks: dict[int, Talk] = {}
        self._desk = Desk(num_replicas, clock)

    def connect(self, slot: int, replica: int, life: str, send: Callable[[Message], None]) -> Peer:
        """A replica is there; if an earlier life of it seems to be, too, that one is gone."""
        if (slot, replica) in self.peers:
            self.lose(self.peers[slot, replica])
        peer = Peer(slot, (replica, life), send)
        self.peers[slot, replica] = peer
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
            self._talk(peer.slot).offer(peer, message)
        elif operation in ("piece", "hold"):
            present = [each.member[0] for each in self._members(peer.slot)]
            self._desk.receive(peer, message, present)
        else:
            self._spaces[peer.slot].handle(peer, message)
        self._talk(peer.slot).settle(self._members(peer.slot))

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
        self._talk(peer.slot).settle(self._members(peer.slot))

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

    def _talk(self, slot: int) -> Talk:
        return self._talks.setdefault(slot, Talk(self._clock))
