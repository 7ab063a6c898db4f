"""Which samples make up which step, as a pure function of the seed and the position.

Nothing is remembered between steps, so a run resumes in the middle of an epoch at once, with any
number of replicas, whatever the size of the data. Standard library only; the shuffling works on
Python integers and, element by element, on integer tensors or arrays of 64 bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROUNDS = 8
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Cursor:
    """How far the training is; what a checkpoint remembers of the data.

    Attributes:
        step: steps done since the beginning of the job.
        loop: number of the `steps` loop that is being run, from 0.
        loop_step: steps done in that loop.
        loop_epoch: whole epochs done in that loop.
        epoch: whole epochs done since the beginning of the job; it selects the order.
        position: samples of the current epoch that are used up.
        order: what the position refers to: seed, size and whether shuffled.
    """

    step: int = 0
    loop: int = 0
    loop_step: int = 0
    loop_epoch: int = 0
    epoch: int = 0
    position: int = 0
    order: tuple[int, int, bool] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cursor:
        """Return the cursor that `to_dict` described."""
        order = values.get("order")
        return cls(**{**values, "order": None if order is None else tuple(order)})


@dataclass(frozen=True)
class Batch:
    """One global batch: samples `first` to `first + count` of an epoch's order.

    Attributes:
        first: position of its first sample.
        count: samples in it, over all replicas.
        epoch: the epoch it belongs to, from 0.
        is_last_of_epoch: whether the epoch ends with it.
        after: the cursor once it is done.
    """

    first: int
    count: int
    epoch: int
    is_last_of_epoch: bool
    after: Cursor


@dataclass(frozen=True)
class Plan:
    """One loop over the data: `epochs` epochs or `steps` steps, whichever ends first.

    Attributes:
        order: seed, number of samples, whether shuffled.
        batch_size: samples per step over all replicas.
        epochs: None for as many as it takes.
        steps: None for as many as it takes; one of the two is given.
    """

    order: tuple[int, int, bool]
    batch_size: int
    epochs: int | None
    steps: int | None

    @property
    def steps_total(self) -> int:
        """Steps of the whole loop, from its beginning."""
        per_epoch = -(-self.order[1] // self.batch_size)
        in_epochs = None if self.epochs is None else per_epoch * self.epochs
        return min(total for total in (in_epochs, self.steps) if total is not None)

    def enter(self, cursor: Cursor) -> Cursor:
        """Return the cursor to begin this loop with.

        A position in another order of samples means nothing: the epoch then begins anew.
        """
        position = cursor.position if cursor.order == self.order else 0
        return replace(cursor, order=self.order, position=position)

    def batches(self, cursor: Cursor) -> Iterator[Batch]:
        """Yield what is left of the loop."""
        size = self.order[1]
        while (self.epochs is None or cursor.loop_epoch < self.epochs) and (
            self.steps is None or cursor.loop_step < self.steps
        ):
            first = cursor.position
            count = min(self.batch_size, size - first)
            ends = first + count == size
            after = replace(
                cursor,
                step=cursor.step + 1,
                loop_step=cursor.loop_step + 1,
                loop_epoch=cursor.loop_epoch + ends,
                epoch=cursor.epoch + ends,
                position=0 if ends else first + count,
            )
            yield Batch(first, count, cursor.epoch, ends, after)
            cursor = after


def leave_loop(cursor: Cursor) -> Cursor:
    """Return the cursor between this loop and the next."""
    return replace(cursor, loop=cursor.loop + 1, loop_step=0, loop_epoch=0)


def share_of(count: int, replica: int, num_replicas: int) -> range:
    """Return which of `count` samples one replica takes; all shares together are each one once.

    Shares differ by at most one sample; with fewer samples than replicas some are empty.
    """
    least, more = divmod(count, num_replicas)
    first = replica * least + min(replica, more)
    return range(first, first + least + (replica < more))


def order_keys(seed: int, epoch: int) -> list[int]:
    """Return the keys that shuffle one epoch of one seed."""
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=4 * ROUNDS).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]


def shuffled(position: int, size: int, keys: list[int]) -> int:
    """Return the sample at a position: a permutation of `range(size)`, computed point by point.

    Source:
        A Feistel network on the smallest power of two that holds `size`, walked along its cycle
        until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
        Ours takes halves of unequal width in turn, so at most one bit is wasted.
    """
    index: int = permute_bits(position, size, keys)
    while index >= size:
        index = permute_bits(index, size, keys)
    return index


def permute_bits(value: Any, size: int, keys: list[int]) -> Any:
    """Permute the numbers below the smallest power of two >= `size`, and >= 4.

    Takes an integer, or a tensor or array of signed 64-bit integers; gives the same kind.
    """
    bits = max(2, (size - 1).bit_length())
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    low, high = value & low_mask, value >> low_bits
    for number, key in enumerate(keys):
        if number % 2:
            low = low ^ (_mix(high, key) & low_mask)
        else:
            high = high ^ (_mix(low, key) & high_mask)
    return (high << low_bits) | low


def _mix(value: Any, key: int) -> Any:
    """Hash 32 bits (the finalizer of MurmurHash3); 64-bit overflow cannot reach the low 32."""
    mixed = (value ^ key) & _MASK
    mixed = mixed ^ (mixed >> 16)
    mixed = (mixed * 0x85EBCA6B) & _MASK
    mixed = mixed ^ (mixed >> 13)
    mixed = (mixed * 0xC2B2AE35) & _MASK
    return mixed ^ (mixed >> 16)
