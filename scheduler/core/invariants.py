"""What must be true after every pass; our own mistakes end here. For tests and debugging.

`check` costs a look at everything, so it runs only where `State.is_checked` is set.
"""

from __future__ import annotations

from scheduler.core.cluster import Placement
from scheduler.core.state import State


def check(state: State) -> None:
    """Fail with the fact if the state contradicts itself.

    Raises:
        AssertionError: two jobs hold one GPU, a gang is not whole, what is free on a node, a line
            or a quota disagrees with the jobs.
    """
    _check_places(state)
    _check_lines(state)
    _check_quotas(state)


def _check_places(state: State) -> None:
    held: dict[tuple[str, int], str] = {}
    used: dict[str, list[int]] = {}
    for job_id, entry in sorted(state.jobs.items()):
        view = entry.view
        if view.placement is None:
            continue
        _check_gang(job_id, view.placement, view.shape.num_workers, view.shape.num_gpus)
        for share in view.placement.shares:
            for index in share.gpu_indices:
                other = held.setdefault((share.node_id, index), job_id)
                assert other == job_id, f"{share.node_id}/{index} is held by {other} and {job_id}"
            sums = used.setdefault(share.node_id, [0, 0, 0])
            sums[0] += len(share.gpu_indices)
            sums[1] += view.shape.per_worker.cpu_milli * share.num_workers
            sums[2] += view.shape.per_worker.memory_mib * share.num_workers
    kept: dict[tuple[str, int], str] = {}
    for job_id in state.claimants:
        claim = state.jobs[job_id].view.claim
        for share in () if claim is None else claim.placement.shares:
            for index in share.gpu_indices:
                other = kept.setdefault((share.node_id, index), job_id)
                assert other == job_id, f"{share.node_id}/{index} is kept for {other} and {job_id}"
    for node_id, (_, cpu_milli, memory_mib) in used.items():
        node = state.nodes.by_id.get(node_id)
        if node is not None:
            room = node.view.capacity
            # Less than nothing is free on a node that has become smaller under its jobs.
            assert node.free_cpu_milli == room.cpu_milli - cpu_milli, f"{node_id}: CPUs drifted"
            left_mib = room.memory_mib - memory_mib
            assert node.free_memory_mib == left_mib, f"{node_id}: memory drifted"
            taken = {index for held_id, index in {*held, *kept} if held_id == node_id}
            free = len(set(node.view.gpu_indices) - taken)
            assert node.free_gpus == free, f"{node_id}: free GPUs drifted"


def _check_gang(job_id: str, placement: Placement, num_workers: int, num_gpus: int) -> None:
    placed = sum(share.num_workers for share in placement.shares)
    assert placed == num_workers, f"{job_id} has {placed} of {num_workers} workers"
    gpus = sum(len(share.gpu_indices) for share in placement.shares)
    assert gpus == num_gpus, f"{job_id} has {gpus} of {num_gpus} GPUs"


def _check_lines(state: State) -> None:
    listed = {place[3] for line in state.lines.by_key.values() for place in line.places}
    for job_id in listed:
        entry = state.jobs.get(job_id)
        assert entry is not None, f"{job_id} is in a line and nowhere else"
        assert entry.view.placement is None, f"{job_id} waits and runs"
        assert entry.view.claim is None, f"{job_id} waits in line though places are kept for it"
    for line in state.lines.by_key.values():
        assert line.places == sorted(line.places), f"line {line.key} is out of order"


def _check_quotas(state: State) -> None:
    totals: dict[tuple[str, str], list[int]] = {key: [0, 0] for key in state.tenants.by_key}
    for entry in state.jobs.values():
        view = entry.view
        if view.placement is None and view.claim is None:
            continue
        for key in {(view.project, ""), (view.project, view.user)}:
            totals.setdefault(key, [0, 0])[view.placement is None] += view.shape.num_gpus
    for (project, user), (num_gpus, num_kept) in totals.items():
        tenant = state.tenants.get(project, user)
        assert tenant.num_gpus == num_gpus, f"{project}/{user}: GPUs in use drifted"
        assert tenant.num_kept == num_kept, f"{project}/{user}: GPUs kept drifted"
