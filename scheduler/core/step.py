"""One scheduling pass: `step(state, deltas, now_ms) → (state, plan)`. Pure; the only entry point.

The pass is level-triggered: it looks at where things are, so a delta that is lost, doubled or late
costs latency at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from scheduler.core.cluster import (
    ClusterView,
    NodeShare,
    NodeView,
    NoFit,
    Placement,
    WaitingJob,
)
from scheduler.core.decisions import Admit, Decision, Explain, Hold, Plan, Start
from scheduler.core.placement import place
from scheduler.core.queue import order_jobs
from scheduler.core.reasons import Reason
from scheduler.core.states import JobState


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A delta that replaces the whole view: what the database says now."""

    view: ClusterView


def step(state: ClusterView, deltas: Sequence[Observed], now_ms: int) -> tuple[ClusterView, Plan]:
    """Decide what starts, what waits and why.

    Args:
        state: the view after the last pass.
        deltas: what has been seen since, oldest first.
        now_ms: milliseconds since the epoch.

    Returns:
        The view as it will be once the plan is applied, and the plan. Equal arguments give equal
        results, byte for byte.
    """
    view = deltas[-1].view if deltas else state
    nodes = {node.node_id: node for node in view.nodes}
    decisions: list[Decision] = []
    left: list[WaitingJob] = []
    wakeups: list[int] = []
    blocked: dict[str, WaitingJob] = {}
    for job in order_jobs(view.waiting):
        hold = _find_hold(job, now_ms)
        if hold is not None:
            decisions.extend(_hold(job, *hold))
            if not job.is_held:
                wakeups.append(job.not_before_ms)
            left.append(job)
            continue
        decisions.extend(_admit(job))
        version = job.version + (job.state is JobState.PENDING)
        outcome = _try(job, nodes, blocked)
        if isinstance(outcome, Placement):
            decisions.append(Start(job_id=job.job_id, version=version, placement=outcome))
            for share in outcome.shares:
                nodes[share.node_id] = _take(nodes[share.node_id], share, job)
        else:
            blocked.setdefault(job.pool, job)
            if (outcome.reason, outcome.message) != (job.reason, job.message):
                decisions.append(
                    Explain(
                        job_id=job.job_id,
                        version=version,
                        reason=outcome.reason,
                        message=outcome.message,
                    )
                )
            left.append(job)
    after = dataclasses.replace(view, nodes=tuple(nodes.values()), waiting=tuple(left))
    return after, Plan(decisions=tuple(decisions), next_wakeup_ms=min(wakeups, default=None))


def _find_hold(job: WaitingJob, now_ms: int) -> tuple[str, str] | None:
    if job.is_held:
        return Reason.HELD_BY_USER, "held: release it to let it run"
    if job.not_before_ms > now_ms:
        return job.not_before_reason, job.message
    return None


def _hold(job: WaitingJob, reason: str, message: str) -> list[Decision]:
    if job.state is JobState.PENDING and job.reason == reason:
        return []
    return [Hold(job_id=job.job_id, version=job.version, reason=reason, message=message)]


def _admit(job: WaitingJob) -> list[Decision]:
    if job.state is not JobState.PENDING:
        return []
    reason = Reason.WAITING_FOR_PLACEMENT
    return [Admit(job_id=job.job_id, version=job.version, reason=reason, message="")]


def _try(
    job: WaitingJob, nodes: dict[str, NodeView], blocked: dict[str, WaitingJob]
) -> Placement | NoFit:
    ahead = blocked.get(job.pool)
    if ahead is None:
        return place(job, list(nodes.values()))
    # Strict order inside a pool: a gang that waits for room must not be overtaken for ever.
    message = f"waits behind {ahead.num_workers} workers that are ahead in pool {job.pool}"
    return NoFit(reason=Reason.HIGHER_PRIORITY_AHEAD, message=message)


def _take(node: NodeView, share: NodeShare, job: WaitingJob) -> NodeView:
    taken = job.per_worker.times(share.num_workers)
    free_gpu_indices = tuple(i for i in node.free_gpu_indices if i not in set(share.gpu_indices))
    return dataclasses.replace(node, free=node.free.minus(taken), free_gpu_indices=free_gpu_indices)
