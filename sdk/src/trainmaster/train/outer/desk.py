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
        self._left: dict[int, Peer] = {}
        self._meeting: set[int] = set()
        self._meet_at_s: float | None = None  # asked for by who has left, and so is not heard then

    def receive(self, peer: Peer, message: Message, present: Iterable[int]) -> None:
        """Give a replica its next piece, or let it wait.

        Args:
            peer: the replica.
            message: "piece", with its plan and cursor; "hold", so that all meet soon; or "leave",
                once it has left the loop: it is answered when all have, or the loop is over, or
                all meet. If it says after how many seconds from now, all are to meet then.
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
            self._tell(peer, Rest.END, is_late=True)
            return
        number = peer.member[0]
        if head["op"] == "leave":
            self._dispatcher.finish(number)
            self._left[number] = peer
            self._meeting.discard(number)
            if head.get("meet_in_s") is not None:
                self._meet_at_s = self._clock() + head["meet_in_s"]
            self._settle()
            return
        if self._meet_at_s is not None and self._clock() >= self._meet_at_s:
            self._dispatcher.hold()
            self._meet_at_s = None
        self._dispatcher.enter(number)
        self._asking[number] = peer
        self._meeting.discard(number)
        self._settle()
        if not head["is_patient"] and self._asking.pop(number, None) is not None:
            self._tell(peer, Rest.WAIT)

    def lose(self, peer: Peer) -> None:
        """A replica is gone; what it was working on goes to somebody else."""
        if self._dispatcher is not None:
            self._asking.pop(peer.member[0], None)
            self._left.pop(peer.member[0], None)
            self._meeting.discard(peer.member[0])
            self._dispatcher.leave(peer.member[0])
            self._settle()

    @property
    def cursor(self) -> Cursor | None:
        """How much of the data has been given out; None before the first loop."""
        return None if self._dispatcher is None else self._dispatcher.cursor

    def epoch_of(self, peer: Peer) -> int | None:
        """Return the epoch of the piece that a replica works on; None if it has none."""
        return None if self._dispatcher is None else self._dispatcher.epoch_of(peer.member[0])

    def _open(self, cursor: Cursor, described: dict[str, Any], present: Iterable[int]) -> None:
        # Whoever is here yet is in a loop that is over for everybody else.
        self._tell_all(self._asking, Rest.END, is_late=True)
        self._tell_all(self._left, Rest.END, is_late=True)
        self._meeting.clear()
        self._meet_at_s = None
        plan = Plan(**{**described, "order": tuple(described["order"])})
        self._loop, self._dispatcher = cursor.loop, Dispatcher(plan, cursor, self._num_replicas)
        for number in present:
            self._dispatcher.enter(number)

    def _settle(self) -> None:
        """Answer everybody who can be answered by now."""
        dispatcher = self._dispatcher
        assert dispatcher is not None
        rest = Rest.WAIT
        # Who joins during a meeting must not train into what the others are saving.
        for number, peer in sorted(self._asking.items()) if not self._meeting else ():
            piece = dispatcher.ask(number)
            if isinstance(piece, Rest):
                rest = piece
            else:
                del self._asking[number]
                waited_s = self._clock() - peer.asked_at_s
                described = {**vars(piece), "after": vars(piece.after)}
                peer.answer({"piece": described}, waited_s=waited_s)
        if self._left and not dispatcher.replicas:
            dispatcher.close()
            self._tell_all(self._left, Rest.END)
        if rest is Rest.WAIT or self._asking.keys() < dispatcher.replicas:
            return
        if rest is Rest.MEET:
            self._meeting = {*self._asking, *self._left}
            self._meet_at_s = None
        self._tell_all(self._left, rest)
        self._tell_all(self._asking, rest)
        dispatcher.go_on()

    def _tell_all(self, peers: dict[int, Peer], rest: Rest, *, is_late: bool = False) -> None:
        for peer in peers.values():
            self._tell(peer, rest, is_late=is_late)
        peers.clear()

    def _tell(self, peer: Peer, rest: Rest, *, is_late: bool = False) -> None:
        """Tell a replica that it gets no piece; it is late where the others are in another loop."""
        assert self._dispatcher is not None
        cursor = self._dispatcher.cursor.to_dict()
        head = {"rest": rest.value, "cursor": cursor, "is_late": is_late}
        peer.answer(head, waited_s=self._clock() - peer.asked_at_s)
