"""Where a gang goes: whole or not at all, in the smallest domain that holds it. Pure.

One node where one could hold it, the fullest that still does; else whole nodes of one kind, in one
rack if a rack has them, and one more for the rest. Gangs without GPUs, and those that allow it,
may be split over any nodes. Equal input gives equal placement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scheduler.core.cluster import NodeShare, Placement, Shape
from scheduler.core.nodes import Group, Node, Nodes
from scheduler.core.resources import Resources

_TIES_MAX = 8

Allowed = Callable[[str], bool]


def place(
    shape: Shape, pool: str, nodes: Nodes, allowed: Allowed | None = None
) -> Placement | None:
    """Return a place for every worker that is free now, None when there is none.

    Args:
        allowed: whether a node may be used; None: all that take new work.
    """
    groups = nodes.find_groups(pool, shape)
    for group in find_homes(shape, groups):
        found = _place_in_group(shape, group, nodes, allowed)
        if found is not None:
            return found
    if shape.may_spread or not shape.per_worker.num_gpus:
        return _spread(shape, groups, nodes, allowed)
    return None


def find_homes(shape: Shape, groups: list[Group]) -> list[Group]:
    """Return the groups that may hold the gang: where one node could, only those where one can."""
    fitting = [group for group in groups if count_per_node(shape, group.capacity)]
    single = [
        group for group in fitting if count_per_node(shape, group.capacity) >= shape.num_workers
    ]
    return single or fitting


def share_of(node: Node, num_workers: int, per_worker: Resources) -> NodeShare:
    """Return the part of a gang that `node` runs, on its first free GPUs."""
    return NodeShare(
        node_id=node.view.node_id,
        num_workers=num_workers,
        gpu_indices=node.pick_gpus(num_workers * per_worker.num_gpus),
    )


def count_per_node(shape: Shape, capacity: Resources) -> int:
    """Return how many workers an empty node of this capacity holds."""
    return capacity.count_fitting(shape.per_worker)


def split(shape: Shape, per_node: int) -> tuple[int, int]:
    """Return how many whole nodes a gang takes and how many workers go on one more."""
    if shape.num_workers <= per_node:
        return 0, shape.num_workers
    return divmod(shape.num_workers, per_node)


def _place_in_group(
    shape: Shape, group: Group, nodes: Nodes, allowed: Allowed | None
) -> Placement | None:
    per_node = count_per_node(shape, group.capacity)
    if per_node == 0:
        return None
    whole, rest = split(shape, per_node)
    if whole == 0:
        node = _find_tightest(shape, rest, group, nodes, allowed, ())
        if node is None:
            return None
        return Placement(shares=(share_of(node, rest, shape.per_worker),))
    empty = [
        nodes.by_id[node_id]
        for node_id in group.iter_emptiest(per_node * shape.per_worker.num_gpus)
        if (allowed is None or allowed(node_id))
        and nodes.by_id[node_id].count_room(shape.per_worker) >= per_node
    ]
    if len(empty) < whole:
        return None
    chosen = _choose_rack(empty, whole)
    shares = [share_of(node, per_node, shape.per_worker) for node in chosen]
    if rest:
        used = tuple(node.view.node_id for node in chosen)
        node = _find_tightest(shape, rest, group, nodes, allowed, used)
        if node is None:
            return None
        shares.append(share_of(node, rest, shape.per_worker))
    return Placement(shares=tuple(shares))


def _find_tightest(
    shape: Shape,
    num_workers: int,
    group: Group,
    nodes: Nodes,
    allowed: Allowed | None,
    used: tuple[str, ...],
) -> Node | None:
    """The node with the fewest free GPUs that holds them; of equals the one left tightest.

    Among nodes with equally many free GPUs fragments differ only by what is left of the CPUs and
    memory that later gangs need beside their GPUs; the first few are compared.
    """
    per_worker = shape.per_worker
    best: Node | None = None
    best_free, num_ties = -1, 0
    for node_id in group.iter_fullest(num_workers * per_worker.num_gpus):
        node = nodes.by_id[node_id]
        if best is not None and (node.free_gpus != best_free or num_ties >= _TIES_MAX):
            break
        if node_id in used or (allowed is not None and not allowed(node_id)):
            continue
        if node.count_room(per_worker) < num_workers:
            continue
        num_ties += 1
        if best is None or _left(node) < _left(best):
            best, best_free = node, node.free_gpus
    return best


def _left(node: Node) -> tuple[int, int, str]:
    return (node.free_cpu_milli, node.free_memory_mib, node.view.node_id)


def _choose_rack(nodes: list[Node], count: int) -> list[Node]:
    """The first `count` nodes of the smallest rack that has them, else of all."""
    racks: dict[str, list[Node]] = {}
    for node in nodes:
        racks.setdefault(node.view.rack, []).append(node)
    fitting = [(len(here), rack) for rack, here in racks.items() if len(here) >= count]
    if fitting:
        return racks[min(fitting)[1]][:count]
    # No rack has enough: as few racks as possible, the fullest first.
    ordered = sorted(racks.items(), key=lambda item: (-len(item[1]), item[0]))
    return [node for _, here in ordered for node in here][:count]


def _spread(
    shape: Shape, groups: Iterable[Group], nodes: Nodes, allowed: Allowed | None
) -> Placement | None:
    per_worker = shape.per_worker
    room = [
        (node.count_room(per_worker), node)
        for group in groups
        for node_id in group.iter_emptiest()
        if allowed is None or allowed(node_id)
        for node in (nodes.by_id[node_id],)
    ]
    # One node if any holds all of it, across kinds; else the fewest, the roomiest first.
    whole = [pair for pair in room if pair[0] >= shape.num_workers]
    if whole:
        _, node = min(whole, key=lambda pair: (pair[1].free_gpus, *_left(pair[1])))
        return Placement(shares=(share_of(node, shape.num_workers, per_worker),))
    shares: list[NodeShare] = []
    missing = shape.num_workers
    for count, node in sorted(room, key=lambda pair: (-pair[0], pair[1].view.node_id)):
        taken = min(count, missing)
        if taken == 0:
            break
        shares.append(share_of(node, taken, per_worker))
        missing -= taken
    return Placement(shares=tuple(shares)) if missing == 0 else None
