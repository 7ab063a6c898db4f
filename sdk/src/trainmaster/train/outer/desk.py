"""Where replicas that do not go in step get their pieces, and hear that all are to meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainmaster._order import Cursor, Plan
from trainmaster.train.outer.dispatch import Dispatcher, Rest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.space import Clock, Peer


class Desk:
    """One loop over the data at a time; the first replica that asks for a loop opens it."""

    def __init__(self, num_replicas: int, clock: Clock) -> None:
        self._num_replicas, self._clock = num_replicas, clock
        self._loop = -1
        self._dispatcher: Dispatcher | None = None
        self._asking: dict[int, Peer] = {}

    def receive(self, peer: Peer, message: Message, present: Iterable[int]) -> None:
        """Give a replica its next piece, or let it wait.

        Args:
            peer: the replica.
            message: "piece", with its plan and cursor; or "hold", so that all meet soon.
            present: all replicas that are there.
        """
        head = message.head
        if head["op"] == "hold":
            if self._dispatcher is not None:
                self._dispatcher.hold()
            peer.answer({})
            return
        cursor = Cursor.from_dict(head["cursor"])
        if cursor.loop > self._loop:
            self._open(cursor, head["plan"], present)
        assert self._dispatcher is not None
        if cursor.loop < self._loop:
            self._tell(peer, Rest.END)
            return
        self._dispatcher.enter(peer.member[0])
        self._asking[peer.member[0]] = peer
        self._settle()
        if not head["is_patient"] and self._asking.pop(peer.member[0], None) is not None:
            self._tell(peer, Rest.WAIT)

    def lose(self, peer: Peer) -> None:
        """A replica is gone; what it was working on goes to somebody else."""
        if self._dispatcher is not None:
            self._asking.pop(peer.member[0], None)
            self._dispatcher.leave(peer.member[0])
            self._settle()

    def _open(self, cursor: Cursor, described: dict[str, Any], present: Iterable[int]) -> None:
        for peer in self._asking.values():  # in a loop that is over for everybody else
            self._tell(peer, Rest.END)
        self._asking.clear()
        plan = Plan(**{**described, "order": tuple(described["order"])})
        self._loop, self._dispatcher = cursor.loop, Dispatcher(plan, cursor, self._num_replicas)
        for number in present:
            self._dispatcher.enter(number)

    def _settle(self) -> None:
        """Answer everybody who can be answered by now."""
        dispatcher = self._dispatcher
        assert dispatcher is not None
        rest = Rest.WAIT
        for number, peer in sorted(self._asking.items()):
            piece = dispatcher.ask(number)
            if isinstance(piece, Rest):
                rest = piece
            else:
                del self._asking[number]
                waited_s = self._clock() - peer.asked_at_s
                described = {**vars(piece), "after": vars(piece.after)}
                peer.answer({"piece": described}, waited_s=waited_s)
        if rest is Rest.WAIT or self._asking.keys() < dispatcher.replicas:
            return
        for peer in self._asking.values():
            self._tell(peer, rest)
        self._asking.clear()
        dispatcher.go_on()

    def _tell(self, peer: Peer, rest: Rest) -> None:
        assert self._dispatcher is not None
        head = {"rest": rest.value, "cursor": self._dispatcher.cursor.to_dict()}
        peer.answer(head, waited_s=self._clock() - peer.asked_at_s)
