"""Why a job that may start finds no place, with the numbers. Pure."""

from __future__ import annotations

from scheduler.core.cluster import JobView, Shape
from scheduler.core.nodes import Group
from scheduler.core.placement import count_per_node, find_homes, split
from scheduler.core.reasons import Reason
from scheduler.core.state import State

# On more nodes than this their GPUs are counted first, which takes no look at each.
_COUNTED_MAX = 64


def describe_no_room(job: JobView, state: State) -> tuple[str, str]:
    """Return the reason that stands in the way, and how far away room is."""
    shape, pool = job.shape, job.pool
    here = state.nodes.groups.get(pool, {})
    if not here:
        return Reason.NO_NODES, f"no node has joined pool {pool}"
    if not any(group.num_open for group in here.values()):
        return Reason.NO_NODES, _describe_closed(pool, state)
    groups = find_homes(shape, state.nodes.find_groups(pool, shape))
    if not groups:
        if not shape.gpu_models and not shape.gpu_memory_mib:
            told = shape.per_worker.describe()
            return Reason.INSUFFICIENT_RESOURCES, f"no node of pool {pool} could hold {told}"
        wanted = " or ".join(shape.gpu_models) or f"{shape.gpu_memory_mib / 1024:g} GiB each"
        return Reason.GPU_UNAVAILABLE, f"no node of pool {pool} has GPUs of the kind: {wanted}"
    per_worker = shape.per_worker
    if shape.may_spread or not per_worker.num_gpus:
        groups = list(here.values())
    needs = f"needs {shape.num_workers} workers of {per_worker.describe()} at once"
    if per_worker.num_gpus and sum(group.num_open for group in groups) > _COUNTED_MAX:
        at_most = sum(group.count_gpu_room(per_worker.num_gpus) for group in groups)
        if at_most < shape.num_workers:
            return Reason.INSUFFICIENT_RESOURCES, f"{needs}, pool {pool} has GPUs for {at_most} now"
    rooms = [
        state.nodes.by_id[node_id].count_room(per_worker)
        for group in groups
        for node_id in group.iter_emptiest()
    ]
    free = sum(rooms)
    if free >= shape.num_workers and per_worker.num_gpus:
        want = _describe_domain(shape, groups)
        message = (
            f"{needs} on {want}; pool {pool} has room for {free}, at most {max(rooms)} of them "
            "on one node: spread them (resources.spread), or use fewer workers"
        )
        return Reason.FRAGMENTED, message
    return Reason.INSUFFICIENT_RESOURCES, f"{needs}, pool {pool} has room for {free} now"


def _describe_closed(pool: str, state: State) -> str:
    counts: dict[str, int] = {}
    for node in state.nodes.by_id.values():
        if node.view.pool == pool:
            counts[node.view.closed_reason] = counts.get(node.view.closed_reason, 0) + 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f"no node of pool {pool} takes new work: {told}"


def _describe_domain(shape: Shape, groups: list[Group]) -> str:
    per_node = max(count_per_node(shape, group.capacity) for group in groups)
    whole, rest = split(shape, per_node)
    if not whole:
        return "one node"
    return f"{whole} whole nodes" + (f" and {rest} workers on one more" if rest else "")
