"""Whether a job may start at all, before anybody asks where. Pure.

A hold keeps a job out of its line; a cap keeps a job in its line from getting places.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.core.cluster import JobView, QueueView
from scheduler.core.policy import HOUR_MS
from scheduler.core.reasons import Reason
from scheduler.core.tenants import Tenant, Tenants


def find_hold(job: JobView, queues: Mapping[str, QueueView], now_ms: int) -> tuple[str, str] | None:
    """Return why the job may not even wait for places, with what to do, or None."""
    if job.is_held:
        return Reason.HELD_BY_USER, "held: release it to let it run"
    if job.waits_for:
        more = f" and {len(job.waits_for) - 1} more" if len(job.waits_for) > 1 else ""
        return Reason.DEPENDENCY_NOT_MET, f"starts when {job.waits_for[0]}{more} has succeeded"
    if job.not_before_ms > now_ms:
        return job.not_before_reason or Reason.BEGIN_TIME_NOT_REACHED, job.message
    queue = queues.get(job.queue)
    if queue is not None and not queue.is_open:
        message = f"queue {job.queue} is closed: it starts when an administrator opens it"
        return Reason.QUEUE_CLOSED, message
    return None


def find_cap(job: JobView, tenants: Tenants) -> tuple[str, str] | None:
    """Return which quota or budget the job would break if it started now, or None.

    What is kept for jobs that are about to start counts as if they had.
    """
    num_gpus = job.shape.num_gpus
    if not num_gpus:
        return None
    project = tenants.get(job.project)
    num_own = 0 if job.claim is None or job.placement is not None else num_gpus
    found = _check(project, num_gpus, num_own, f"project {job.project}")
    if found is None and job.user:
        user = tenants.get(job.project, job.user)
        found = _check(user, num_gpus, num_own, f"user {job.user}")
    return found


def _check(tenant: Tenant, num_gpus: int, num_own: int, name: str) -> tuple[str, str] | None:
    quota = tenant.quota
    if quota.budget_gpu_ms is not None and quota.spent_gpu_ms >= quota.budget_gpu_ms:
        message = (
            f"{name} has spent its {quota.budget_gpu_ms / HOUR_MS:g} GPU-hours of this month: "
            "it starts next month, or when an administrator raises gpu_hours_per_month"
        )
        return Reason.BUDGET_SPENT, message
    limit = quota.limit_gpus
    if not quota.may_borrow and (limit is None or limit > quota.guaranteed_gpus):
        limit = quota.guaranteed_gpus
    num_used = tenant.num_gpus + tenant.num_kept - num_own
    if limit is not None and num_used + num_gpus > limit:
        message = (
            f"{name} may use {limit} GPUs at once and uses {num_used}, this job needs "
            f"{num_gpus}: it starts when others of its jobs have ended"
        )
        if num_gpus > limit:
            message = (
                f"{name} may use {limit} GPUs at once, this job needs {num_gpus}: use fewer "
                "workers, or ask an administrator to raise limit_gpus"
            )
        return Reason.QUOTA_REACHED, message
    return None
