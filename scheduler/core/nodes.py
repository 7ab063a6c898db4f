"""The room there is: nodes by what is free on them, kept up with every place given or returned.

Mutable, deterministic. A node knows who is on it (jobs) and what is kept on it (claims); places of
a job that is leaving and that are already kept for another one count once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from scheduler.core.cluster import NodeShare, NodeView, Placement, Shape
from scheduler.core.resources import Resources, is_gpu_model


class Node:
    """One machine and what is taken of it.

    Attributes:
        taken: how many jobs and claims hold each GPU, in the order of `view.gpu_indices`.
        free_gpus: GPUs that nobody holds.
        free_cpu_milli, free_memory_mib: what jobs leave; claims are counted apart.
        claimed, leaving: (CPUs, memory) that claims keep, and that jobs still hold which are
            leaving for a claim.
        residents: job → GPUs it holds here, of jobs only.
        num_claims: claims that keep something here.
        version: of all nodes, when a job last gave something back here, or came to stand lower.
    """

    __slots__ = (
        "claimed",
        "free_cpu_milli",
        "free_gpus",
        "free_memory_mib",
        "kind",
        "leaving",
        "num_claims",
        "position",
        "residents",
        "taken",
        "version",
        "view",
    )

    def __init__(self, view: NodeView) -> None:
        self.view = view
        self.version = 0
        self.kind = _group_key(view)
        self.position = {index: at for at, index in enumerate(view.gpu_indices)}
        self.taken = [0] * len(view.gpu_indices)
        self.free_gpus = len(view.gpu_indices)
        self.free_cpu_milli = view.capacity.cpu_milli
        self.free_memory_mib = view.capacity.memory_mib
        self.residents: dict[str, int] = {}
        self.num_claims = 0
        self.claimed = [0, 0]
        self.leaving = [0, 0]

    def count_room(self, per_worker: Resources) -> int:
        """Return how many workers fit now."""
        room = 1 << 30
        if per_worker.num_gpus:
            room = self.free_gpus // per_worker.num_gpus
        if per_worker.cpu_milli:
            free = self.free_cpu_milli + min(0, self.leaving[0] - self.claimed[0])
            room = min(room, free // per_worker.cpu_milli)
        if per_worker.memory_mib:
            free = self.free_memory_mib + min(0, self.leaving[1] - self.claimed[1])
            room = min(room, free // per_worker.memory_mib)
        return max(0, room)

    def pick_gpus(self, count: int) -> tuple[int, ...]:
        """Return the first `count` free GPUs, as the node numbers them."""
        if count == 0:
            return ()
        indices = self.view.gpu_indices
        picked = [indices[at] for at, held in enumerate(self.taken) if held == 0]
        return tuple(picked[:count])


class Nodes:
    """All nodes of all pools, findable by what is free.

    Groups are nodes of one pool that are alike: a gang of several nodes stays inside one, so that
    its workers are equally fast.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Node] = {}
        self.groups: dict[str, dict[GroupKey, Group]] = {}
        self.version = 0  # grows with all that may let somebody start
        self.num_changes = 0  # grows with all that is given or returned

    def put(self, view: NodeView) -> Node:
        """Add a node, or change what is known of one; who is on it stays."""
        old = self.by_id.get(view.node_id)
        node = Node(view)
        if old is not None:
            if old.view == view:
                return old
            self._unlist(old)
        self.by_id[view.node_id] = node
        self._list(node)
        self.mark(node)
        return node

    def remove(self, node_id: str) -> None:
        """Forget a node."""
        node = self.by_id.pop(node_id, None)
        if node is not None:
            self._unlist(node)
            self.num_changes += 1
            self.version += 1

    def mark(self, node: Node) -> None:
        """Note that there may be more room on a node than a search has seen."""
        self.num_changes += 1
        self.version += 1
        node.version = self.version

    def mark_places(self, placement: Placement) -> None:
        """The same for all nodes of a gang."""
        for share in placement.shares:
            node = self.by_id.get(share.node_id)
            if node is not None:
                self.mark(node)

    def count_free(self, pool: str) -> int:
        """Return how many GPUs of `pool` are free for new work."""
        return sum(group.num_free for group in self.groups.get(pool, {}).values())

    def take(self, owner: str, share: NodeShare, per_worker: Resources, *, is_claim: bool) -> None:
        """Give places to a job, or keep them for one."""
        self._change(owner, share, per_worker, 1, is_claim=is_claim)

    def give_back(
        self, owner: str, share: NodeShare, per_worker: Resources, *, is_claim: bool
    ) -> None:
        """Take places from a job, or keep them no longer."""
        self._change(owner, share, per_worker, -1, is_claim=is_claim)
        node = self.by_id.get(share.node_id)
        if node is not None:
            self.mark(node)

    def mark_leaving(self, share: NodeShare, per_worker: Resources, sign: int) -> None:
        """Count what a job holds as on its way to a claim (1), or no longer so (-1)."""
        node = self.by_id.get(share.node_id)
        if node is not None:
            node.leaving[0] += sign * per_worker.cpu_milli * share.num_workers
            node.leaving[1] += sign * per_worker.memory_mib * share.num_workers

    def find_groups(self, pool: str, shape: Shape) -> list[Group]:
        """Return the groups of `pool` whose nodes have what `shape` asks for, in a fixed order."""
        groups = self.groups.get(pool)
        if not groups:
            return []
        if not shape.gpu_models and not shape.gpu_memory_mib:
            return [groups[key] for key in sorted(groups)]
        return [
            groups[key]
            for key in sorted(groups)
            if (not shape.gpu_models or any(is_gpu_model(one, key[1]) for one in shape.gpu_models))
            and key[2] >= shape.gpu_memory_mib
        ]

    def _change(
        self, owner: str, share: NodeShare, per_worker: Resources, sign: int, *, is_claim: bool
    ) -> None:
        node = self.by_id.get(share.node_id)
        if node is None:
            return  # it was removed under the job; its places went with it
        self.num_changes += 1
        was_free = node.free_gpus
        for index in share.gpu_indices:
            at = node.position.get(index)
            if at is not None:
                before = node.taken[at]
                node.taken[at] = before + sign
                node.free_gpus += (before + sign == 0) - (before == 0)
        cpu_milli = sign * per_worker.cpu_milli * share.num_workers
        memory_mib = sign * per_worker.memory_mib * share.num_workers
        if is_claim:
            node.num_claims += sign
            node.claimed[0] += cpu_milli
            node.claimed[1] += memory_mib
        else:
            node.free_cpu_milli -= cpu_milli
            node.free_memory_mib -= memory_mib
            if sign > 0:
                node.residents[owner] = len(share.gpu_indices)
            else:
                node.residents.pop(owner, None)
        if node.free_gpus != was_free and node.view.is_schedulable:
            self.groups[node.view.pool][node.kind].move(node, was_free)

    def _list(self, node: Node) -> None:
        groups = self.groups.setdefault(node.view.pool, {})
        key = node.kind
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(node.view)
        group.num_nodes += 1
        if node.view.is_schedulable:
            group.add(node)

    def _unlist(self, node: Node) -> None:
        groups = self.groups[node.view.pool]
        key = node.kind
        group = groups[key]
        group.num_nodes -= 1
        if node.view.is_schedulable:
            group.discard(node)
        if group.num_nodes == 0:
            del groups[key]
            if not groups:
                del self.groups[node.view.pool]


GroupKey = tuple[int, str, int]


def _group_key(view: NodeView) -> GroupKey:
    return (len(view.gpu_indices), view.gpu_model, view.gpu_memory_mib)


class Group:
    """Nodes of one pool that are alike, by free GPUs; only those that take new work.

    Attributes:
        by_free: for each number of free GPUs the ids of the nodes that have it, sorted.
        num_free: free GPUs of all of them.
        capacity: the most of each that any has; they may differ in CPUs and memory.
        looked: nodes worth a look for who needs room, as of `looked_changes` of all nodes.
    """

    __slots__ = (
        "_sizes",
        "by_free",
        "capacity",
        "kind",
        "looked",
        "looked_changes",
        "num_free",
        "num_nodes",
        "num_open",
    )

    def __init__(self, view: NodeView) -> None:
        self.capacity = view.capacity
        self._sizes: dict[tuple[int, int], int] = {}
        self.kind = _group_key(view)
        self.by_free: list[list[str]] = [[] for _ in range(len(view.gpu_indices) + 1)]
        self.num_free = 0
        self.num_nodes = 0
        self.num_open = 0
        self.looked: list[Node] = []
        self.looked_changes = -1

    def add(self, node: Node) -> None:
        """List a node that takes new work."""
        insort(self.by_free[node.free_gpus], node.view.node_id)
        self.num_open += 1
        self.num_free += node.free_gpus
        self._count_size(node.view.capacity, 1)

    def discard(self, node: Node) -> None:
        """List it no longer."""
        self._drop(node.free_gpus, node.view.node_id)
        self.num_open -= 1
        self.num_free -= node.free_gpus
        self._count_size(node.view.capacity, -1)

    def move(self, node: Node, was_free: int) -> None:
        """Follow a change of its free GPUs."""
        self._drop(was_free, node.view.node_id)
        self.num_free += node.free_gpus - was_free
        insort(self.by_free[node.free_gpus], node.view.node_id)

    def count_gpu_room(self, per_worker: int) -> int:
        """Return how many workers with so many GPUs fit now, if there are CPUs and memory."""
        return sum(len(ids) * (free // per_worker) for free, ids in enumerate(self.by_free))

    def iter_fullest(self, least_free: int) -> Iterator[str]:
        """Yield nodes with at least `least_free` free GPUs, those with the fewest first."""
        for free in range(least_free, len(self.by_free)):
            yield from self.by_free[free]

    def iter_emptiest(self, least_free: int = 0) -> Iterator[str]:
        """Yield nodes with at least `least_free` free GPUs, those with the most first."""
        for free in range(len(self.by_free) - 1, least_free - 1, -1):
            yield from self.by_free[free]

    def _count_size(self, capacity: Resources, sign: int) -> None:
        size = (capacity.cpu_milli, capacity.memory_mib)
        count = self._sizes[size] = self._sizes.get(size, 0) + sign
        if not count:
            del self._sizes[size]
        if self._sizes and (count == 0 or (sign, count) == (1, 1)):
            self.capacity = Resources(
                num_gpus=self.kind[0],
                cpu_milli=max(cpu_milli for cpu_milli, _ in self._sizes),
                memory_mib=max(memory_mib for _, memory_mib in self._sizes),
            )

    def _drop(self, free: int, node_id: str) -> None:
        ids = self.by_free[free]
        at = bisect_left(ids, node_id)
        if at < len(ids) and ids[at] == node_id:
            del ids[at]
