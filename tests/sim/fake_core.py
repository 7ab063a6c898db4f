"""A core that keeps the views it is shown and decides as a test says: FIFO, or worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scheduler.core.cluster import JobView, NodeShare, NodeView, Placement
from scheduler.core.decisions import Plan, Start
from scheduler.core.deltas import Delta, JobGone, JobSeen, Observed


@dataclass
class Seen:
    """The state of the fake: what it was shown last."""

    nodes: tuple[NodeView, ...] = ()
    jobs: dict[str, JobView] = field(default_factory=dict)

    @property
    def waiting(self) -> list[JobView]:
        return sorted(
            (view for view in self.jobs.values() if view.placement is None),
            key=lambda view: view.sequence,
        )

    @property
    def running(self) -> list[JobView]:
        return [view for view in self.jobs.values() if view.placement is not None]


Step = Callable[[Seen, Sequence[Delta], int], tuple[Seen, Plan]]


def core_that(decide: Callable[[Seen, int], Plan]) -> Step:
    """Return a step that takes in the deltas and then decides."""

    def step(seen: Seen, deltas: Sequence[Delta], now_ms: int) -> tuple[Seen, Plan]:
        after = Seen(nodes=seen.nodes, jobs=dict(seen.jobs))
        for delta in deltas:
            if isinstance(delta, Observed):
                after.nodes = delta.view.nodes
            elif isinstance(delta, JobSeen):
                after.jobs[delta.job.job_id] = delta.job
            elif isinstance(delta, JobGone):
                del after.jobs[delta.job_id]
        return after, decide(after, now_ms)

    return step


def decide_fifo(seen: Seen, now_ms: int) -> Plan:
    """Start jobs of up to one node in submit order, on the first GPUs of the first node."""
    free = {node.node_id: set(node.gpu_indices) for node in seen.nodes}
    for view in seen.running:
        assert view.placement is not None
        for share in view.placement.shares:
            free[share.node_id] -= set(share.gpu_indices)
    starts: list[Start] = []
    for view in seen.waiting:
        wanted = view.shape.num_workers
        node_id = next((name for name, gpus in free.items() if len(gpus) >= wanted), None)
        if node_id is None:
            break
        gpus = sorted(free[node_id])[:wanted]
        free[node_id] -= set(gpus)
        starts.append(start(view, node_id, *gpus))
    return Plan(decisions=tuple(starts))


def start(view: JobView, node_id: str, *gpus: int) -> Start:
    """Return the decision that puts a gang on these GPUs of one node."""
    share = NodeShare(node_id=node_id, num_workers=len(gpus), gpu_indices=gpus)
    return Start(job_id=view.job_id, version=view.version, placement=Placement(shares=(share,)))
