"""Which GPUs are free, node by node, and where a gang goes by the rule that baselines share.

A gang that one node can hold sits on one node, the one it leaves the least room on; a larger one
takes whole nodes, and one more for the rest. Ties go to the first node.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.sim.trace import Cluster

Place = tuple[tuple[int, int], ...]
"""Node by node: its number, and its GPUs as bits."""


class Slots:
    """The free GPUs of a cluster; at first all are."""

    __slots__ = ("free", "gpus_per_node", "masks", "total")

    def __init__(self, cluster: Cluster) -> None:
        self.gpus_per_node = cluster.gpus_per_node
        self.free = [cluster.gpus_per_node] * cluster.num_nodes
        self.masks = [(1 << cluster.gpus_per_node) - 1] * cluster.num_nodes
        self.total = cluster.num_gpus

    def copy(self) -> Slots:
        """Return the same, to try things on."""
        twin = Slots.__new__(Slots)
        twin.gpus_per_node = self.gpus_per_node
        twin.free = self.free.copy()
        twin.masks = self.masks.copy()
        twin.total = self.total
        return twin

    def at_most(self, counts: Sequence[int]) -> Slots:
        """Return the same with no more than `counts` free GPUs on each node."""
        twin = self.copy()
        for node, (free, count) in enumerate(zip(self.free, counts, strict=True)):
            if count < free:
                twin.masks[node] = _lowest_bits(self.masks[node], count)
                twin.free[node] = count
                twin.total -= free - count
        return twin

    def find_place(self, gpus: int) -> Place | None:
        """Return where a gang of `gpus` goes now, or None when it does not fit whole."""
        if gpus > self.total:
            return None
        if gpus <= self.gpus_per_node:
            node = find_best_fit(self.free, gpus)
            return None if node is None else ((node, _lowest_bits(self.masks[node], gpus)),)
        num_whole, rest = divmod(gpus, self.gpus_per_node)
        whole = [node for node, free in enumerate(self.free) if free == self.gpus_per_node]
        if len(whole) < num_whole:
            return None
        place = tuple((node, self.masks[node]) for node in whole[:num_whole])
        if rest == 0:
            return place
        left = self.free.copy()
        for node, _ in place:
            left[node] = 0
        last = find_best_fit(left, rest)
        return None if last is None else (*place, (last, _lowest_bits(self.masks[last], rest)))

    def holds(self, place: Place) -> bool:
        """Whether all of `place` is free."""
        masks = self.masks
        return all(masks[node] & mask == mask for node, mask in place)

    def take(self, place: Place) -> None:
        """Take a place that is free."""
        for node, mask in place:
            assert self.masks[node] & mask == mask, f"node {node}: a GPU is taken twice"
            self.masks[node] ^= mask
            count = mask.bit_count()
            self.free[node] -= count
            self.total -= count

    def release(self, place: Place) -> None:
        """Give back a place that was taken."""
        for node, mask in place:
            assert not self.masks[node] & mask, f"node {node}: a GPU is given back twice"
            self.masks[node] |= mask
            count = mask.bit_count()
            self.free[node] += count
            self.total += count


def find_best_fit(free: list[int], gpus: int) -> int | None:
    """Return the first of the nodes with the least room that is enough, None when none has it."""
    best, best_free = None, 1 << 30
    for node, count in enumerate(free):
        if gpus <= count < best_free:
            best, best_free = node, count
            if count == gpus:
                break
    return best


def _lowest_bits(mask: int, count: int) -> int:
    taken = 0
    for _ in range(count):
        bit = mask & -mask
        taken |= bit
        mask ^= bit
    return taken
