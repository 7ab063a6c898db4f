"""Who computes on which samples when replicas do not go in step. Pure.

The pieces are the shares that replicas in step would take, of the same batches; here whoever is
free takes the next. So each sample comes once per epoch, a slow replica takes fewer, and a
position in the data means the same in every mode.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from trainmaster._order import Batch, share_of

if TYPE_CHECKING:
    from trainmaster._order import Cursor, Plan


class Rest(Enum):
    """What a replica hears that gets no piece."""

    WAIT = "wait"
    MEET = "meet"
    END = "end"


class Dispatcher:
    """Hands out the pieces of one loop.

    Every replica has a last piece of its own in each epoch: when there are only as many pieces
    left as replicas, each is given one, whenever it asks. A piece of a replica that died goes to
    the next who asks.

    Attributes:
        replicas: who is counted in.
        cursor: once somebody has heard MEET or END: all before it is done, nothing after it.
    """

    def __init__(self, plan: Plan, cursor: Cursor, num_shares: int) -> None:
        """`num_shares` is how many pieces a batch has."""
        self.cursor = cursor
        self._plan, self._num_shares = plan, num_shares
        self._batches = plan.batches(cursor)
        self.replicas: set[int] = set()
        self._pieces: deque[Batch] = deque()  # of the batch that was opened last
        self._left = self._count_left()
        self._last: dict[int, deque[Batch]] = {}
        self._given_back: deque[Batch] = deque()
        self._under_way: dict[int, Batch] = {}
        self._is_held = self._is_over = False

    def enter(self, replica: int) -> None:
        """Count a replica in."""
        self.replicas.add(replica)

    def leave(self, replica: int) -> None:
        """Take back what a replica that is gone was working on, or was to get."""
        mine = [self._under_way.pop(replica, None), *self._last.pop(replica, ())]
        for piece in mine:
            if piece is not None and piece.count:
                self._given_back.append(replace(piece, is_last_of_epoch=False))
        self.replicas.discard(replica)

    def finish(self, replica: int) -> None:
        """Count a replica out that leaves the loop; what it was working on is done."""
        self._under_way.pop(replica, None)
        self.leave(replica)

    def epoch_of(self, replica: int) -> int | None:
        """Return the epoch of the piece that a replica works on; None if it has none."""
        piece = self._under_way.get(replica)
        return None if piece is None else piece.epoch

    def hold(self) -> None:
        """Begin no further batch, so that all can meet."""
        self._is_held = True

    def go_on(self) -> None:
        """End the hold."""
        self._is_held = False

    def close(self) -> None:
        """End the loop where it is; what nobody has begun is left out."""
        self._is_over = True
        self._batches = iter(())
        self._pieces.clear()
        self._given_back.clear()

    def ask(self, replica: int) -> Batch | Rest:
        """Return a replica's next piece; the one before is done.

        Who hears WAIT asks again when somebody else has asked or left.
        """
        self._under_way.pop(replica, None)
        piece = self._find_piece(replica)
        if piece is not None:
            self._under_way[replica] = piece
            return piece
        if self._under_way or any(self._last.values()):
            return Rest.WAIT
        return Rest.END if self._is_over else Rest.MEET

    def _find_piece(self, replica: int) -> Batch | None:
        while True:
            if self._last.get(replica):
                return self._last[replica].popleft()
            if self._given_back:
                return self._given_back.popleft()
            if not self._pieces and (self._is_held or not self._open_batch()):
                return None
            if self._left is None or self._left > len(self.replicas):
                return self._take()
            self._hand_out_last()

    def _take(self) -> Batch:
        if not self._pieces:
            self._open_batch()
        if self._left is not None:
            self._left -= 1
        return self._pieces.popleft()

    def _hand_out_last(self) -> None:
        """Give each replica one of the pieces that are left; with too few some are empty."""
        piece = self._pieces[0]
        for replica in sorted(self.replicas):
            piece = self._take() if self._left else replace(piece, count=0)
            self._last.setdefault(replica, deque()).append(replace(piece, is_last_of_epoch=True))
        self._left = self._count_left()

    def _open_batch(self) -> bool:
        batch = next(self._batches, None)
        if batch is None:
            self._is_over = True
            return False
        self.cursor = batch.after
        for share in range(self._num_shares):
            part = share_of(batch.count, share, self._num_shares)
            if part:
                first = batch.first + part.start
                piece = replace(batch, first=first, count=len(part), is_last_of_epoch=False)
                self._pieces.append(piece)
        return True

    def _count_left(self) -> int | None:
        """Return the pieces from the cursor to the end of its epoch; None if the loop ends first.

        Called between batches only.
        """
        cursor, plan = self.cursor, self._plan
        samples = plan.order[1] - cursor.position
        batches = -(-samples // plan.batch_size)
        if plan.steps is not None and plan.steps - cursor.loop_step < batches:
            return None
        last = samples - (batches - 1) * plan.batch_size
        whole = min(self._num_shares, plan.batch_size)
        return (batches - 1) * whole + min(self._num_shares, last)
