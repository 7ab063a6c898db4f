"""What the replicas of one slot share on one server, and how they enter it.

A slot is a place within a replica: the ranks that hold the same part of the model in each replica
share a space. Knows no sockets: peers are anything that can be answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainmaster.train.outer.codec import make_codec
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.handover import Handover
from trainmaster.train.outer.layout import Section
from trainmaster.train.outer.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from trainmaster._order import Cursor
    from trainmaster.train.outer.rounds import Closed, Member

    Clock = Callable[[], float]


class OutOfStep(RuntimeError):
    """What a replica says does not fit what the others said."""


class Peer:
    """A replica at the other end of a line.

    It says one thing at a time and is answered once, perhaps after others have spoken.

    Attributes:
        slot: its place within the replica.
        member: number and life of the replica.
        key: the slot, and the number alone.
        asked_at_s: when it last said something.
    """

    def __init__(self, slot: int, member: Member, send: Callable[[Message], None]) -> None:
        self.slot, self.member = slot, member
        self.key = (slot, member[0])
        self.asked_at_s = 0.0
        self.is_asking = False
        self.is_gone = False
        self._send = send

    def answer(
        self, head: dict[str, Any], tensors: Sequence[torch.Tensor] = (), waited_s: float = 0.0
    ) -> None:
        """Answer what was said; `waited_s` is how long it had to wait for other replicas.

        Who died since is not answered: what it brought counts all the same.
        """
        if self.is_gone:
            return
        assert self.is_asking
        self.is_asking = False
        self._send(Message({**head, "waited_s": waited_s}, list(tensors)))

    def fail(self, error: Exception) -> None:
        """Answer that it cannot be, and why."""
        self.answer({"error": str(error)})


@dataclass(frozen=True)
class Said:
    """A message, and who said it."""

    peer: Peer
    message: Message


class Space:
    """State of one slot: entered by all replicas at the start, and by those that join later.

    The first replica brings what the state is made of; everybody else is given it.

    Attributes:
        sections: what this server has of the layout, in the layout's order.
    """

    admits_at_once = False

    def __init__(
        self, described: Mapping[str, Any], server: int, num_replicas: int, clock: Clock
    ) -> None:
        self._described = described
        self._clock = clock
        self.sections = [Section.from_dict(each) for each in described["layout"]]
        self.sections = [each for each in self.sections if each.server == server]
        self.codec = make_codec(described["compression"])
        self.rounds: Rounds[Said] = Rounds(server == 0, num_replicas)
        self.handover = Handover()
        self._peers: dict[Member, Peer] = {}
        self._is_filled = False
        self._ends_step = True  # with the round under way; who joins begins between steps
        self._cursor: dict[str, Any] | None = None  # of the data, after the last round or piece

    # How replicas come and go.

    def connect(self, peer: Peer) -> None:
        """A replica is there; it takes the place of an earlier life of its own."""
        self._peers[peer.member] = peer
        self.rounds.connect(peer.member)

    def lose(self, peer: Peer) -> None:
        """A replica is gone: whoever waited for it waits no longer."""
        if self._peers.pop(peer.member, None) is not None:
            self.rounds.lose(peer.member)
            self.handover.lose(peer.member)
            self._forget(peer)
            self.settle()

    def begin(self, peer: Peer, message: Message) -> None:
        """A replica wants to take part."""
        head = message.head
        if head["described"] != self._described:
            raise OutOfStep(
                f"replica {peer.member[0]} has other parameters, or other settings, than the "
                "first: every replica must run the same script with the same configuration"
            )
        if not self._is_filled and peer.member[0] == 0:
            if not head["brings"]:
                peer.answer({"wanted": True})
                return
            self._fill(message)
            self._is_filled = True
            self._cursor = head["cursor"]
        self.rounds.join(peer.member, head["after"])
        self.settle()

    def settle(self) -> None:
        """Answer everybody who can be answered by now."""
        while (closed := self.rounds.close(may_admit=self._ends_step)) is not None:
            self._finish(closed)
            for member in closed.admitted:
                self._welcome(self._peers[member], takes=True)
        if self._is_filled:
            have_begun = self.rounds.roll is not None
            for member in self.rounds.admit(at_once=self.admits_at_once):
                self._welcome(self._peers[member], takes=have_begun)
        self.handover.settle((self.rounds.roll or set()) & self._peers.keys())

    def hand_over(self, peer: Peer, message: Message) -> None:
        """Take what members tell those who join them."""
        self.handover.receive(peer, message)
        self.settle()

    def come_to(self, cursor: Cursor) -> None:
        """Hear how far in the data replicas are that do not go in step."""
        self._cursor = cursor.to_dict()

    def roll(self) -> list[Any]:
        """Return who takes part in the next round, for other servers to hear."""
        return sorted(self.rounds.roll or ())

    def _welcome(self, peer: Peer, *, takes: bool) -> None:
        """Let a replica take part; what it takes over from the others it asks the first server."""
        takes = takes and self.rounds.is_first_server
        if takes:
            self.handover.takers.add(peer.member)
        head = {
            "after": self.rounds.number,
            "roll": self.roll(),
            "cursor": self._cursor,
            "takes": takes,
        }
        peer.answer(head, self._enter(peer), self._clock() - peer.asked_at_s)

    # What a space is for; the rest of its duties.

    def handle(self, peer: Peer, message: Message) -> None:
        """Take what a replica says."""
        raise NotImplementedError

    def _fill(self, message: Message) -> None:
        """Take over the first replica's state."""
        raise NotImplementedError

    def _enter(self, peer: Peer) -> list[torch.Tensor]:
        """Return what a replica that begins here must know."""
        raise NotImplementedError

    def _finish(self, closed: Closed[Said]) -> None:
        """Compute a round and answer those who took part."""
        raise NotImplementedError

    def _forget(self, peer: Peer) -> None:
        """Let go of what belongs to a replica that is gone."""
