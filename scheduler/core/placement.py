"""Where a gang goes: whole or not at all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.core.cluster import NodeShare, NodeView, NoFit, Placement, WaitingJob
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources


def place(job: WaitingJob, nodes: Sequence[NodeView]) -> Placement | NoFit:
    """Return a place for every worker of `job`, or why there is none.

    One node if any holds the gang, the one with the least room left over; else the fewest nodes,
    the roomiest first. Ties go to the smaller node id, so equal input gives equal placement.
    """
    pool = [node for node in nodes if node.pool == job.pool]
    if not pool:
        return NoFit(reason=Reason.NO_NODES, message=f"no node has joined pool {job.pool}")
    usable = [node for node in pool if node.is_schedulable]
    if not usable:
        message = f"no node of pool {job.pool} takes new work: all are down, cordoned or draining"
        return NoFit(reason=Reason.NO_NODES, message=message)
    room = [(node.free.count_fitting(job.per_worker), node) for node in usable]
    whole = [(count, node) for count, node in room if count >= job.num_workers]
    if whole:
        _, node = min(whole, key=lambda pair: (_left_over(pair[1], job), pair[1].node_id))
        return Placement(shares=(_share(node, job.num_workers, job.per_worker),))
    return _spread(job, room)


def _spread(job: WaitingJob, room: list[tuple[int, NodeView]]) -> Placement | NoFit:
    shares: list[NodeShare] = []
    missing = job.num_workers
    for count, node in sorted(room, key=lambda pair: (-pair[0], pair[1].node_id)):
        taken = min(count, missing)
        if taken == 0:
            break
        shares.append(_share(node, taken, job.per_worker))
        missing -= taken
    if missing == 0:
        return Placement(shares=tuple(shares))
    free = job.num_workers - missing
    message = (
        f"needs {job.num_workers} workers of {job.per_worker.describe()} at once, "
        f"pool {job.pool} has room for {free} now"
    )
    return NoFit(reason=Reason.INSUFFICIENT_RESOURCES, message=message)


def _left_over(node: NodeView, job: WaitingJob) -> tuple[int, int, int]:
    left = node.free.minus(job.per_worker.times(job.num_workers))
    return (left.num_gpus, left.cpu_milli, left.memory_mib)


def _share(node: NodeView, num_workers: int, per_worker: Resources) -> NodeShare:
    num_gpus = per_worker.num_gpus * num_workers
    return NodeShare(
        node_id=node.node_id,
        num_workers=num_workers,
        gpu_indices=node.free_gpu_indices[:num_gpus],
    )
