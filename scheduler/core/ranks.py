"""Who goes before whom, over all lines: one total order for starting and for evicting. Pure.

Guaranteed before borrowed, then priority, then the key with what its project and user pay for
having had more than their share, then submit order. It is one order on purpose: a preemptor stands
above its victim before and after the exchange, so the victim can never take the places back.
"""

from __future__ import annotations

from scheduler.core.cluster import JobView
from scheduler.core.lines import Entry, Line, Place, Rank
from scheduler.core.tenants import Tenant, Tenants


def rank_waiting(place: Place, job: JobView, tenants: Tenants) -> Rank:
    """Return the rank of a job that waits, submitted or not: guaranteed if it would fit into that.

    What is kept for other jobs of its project counts as if they ran.
    """
    tenant, member = tenants.get_both(job.project, job.user)
    return _rank(place, _would_borrow(tenant, job.shape.num_gpus), tenant, member)


def rank_entry(entry: Entry) -> Rank:
    """Return the same for a job that was submitted."""
    tenant = entry.tenant
    is_borrowed = _would_borrow(tenant, entry.view.shape.num_gpus)
    return _rank(entry.place, is_borrowed, tenant, entry.member)


def rank_in_line(line: Line, place: Place) -> Rank:
    """Return the same for a job that stands in `line`."""
    return _rank(place, _would_borrow(line.tenant, line.num_gpus), line.tenant, line.member)


def rank_running(entry: Entry, *, key: int, num_gpus: int) -> Rank:
    """Return the rank of a job that runs: guaranteed if its project would lose of what is.

    Args:
        key: what to rank it by: as of its last change, or of the last look at it.
        num_gpus: of the job, and of all others of its project that are to go with it.
    """
    tenant, place = entry.tenant, entry.place
    is_borrowed = would_be_borrowed(tenant, num_gpus)
    return _rank((place[0], key, place[2], place[3]), is_borrowed, tenant, entry.member)


def outranks(above: Rank, below: Rank, margin: int, *, is_same_project: bool) -> bool:
    """Whether `above` may take places from `below`.

    Args:
        margin: what the key must be better by when quota and priority do not decide.
        is_same_project: inside a project a job cannot take what is guaranteed from another.
    """
    if not is_same_project and above[0] != below[0]:
        return above[0] < below[0]
    if above[1] != below[1]:
        return above[1] < below[1]
    return above[2] + margin < below[2]


def would_be_borrowed(tenant: Tenant, num_gpus: int) -> bool:
    """Whether a project could lose so many GPUs that it holds without what is guaranteed."""
    guaranteed = tenant.quota.guaranteed_gpus
    return not guaranteed or tenant.num_gpus - tenant.num_leaving - num_gpus >= guaranteed


def limit_priority(place: Place, tenant: Tenant) -> int:
    """Return the priority of a place, as ranks have it, up to what the quota allows."""
    highest = -tenant.quota.priority_max
    return max(highest, place[0])


def _would_borrow(tenant: Tenant, num_gpus: int) -> bool:
    guaranteed = tenant.quota.guaranteed_gpus
    return not guaranteed or tenant.num_gpus + tenant.num_kept + num_gpus > guaranteed


def _rank(place: Place, is_borrowed: bool, tenant: Tenant, member: Tenant | None) -> Rank:
    priority = limit_priority(place, tenant)
    price = tenant.overshare + (member.overshare if member else 0)
    return (int(is_borrowed), priority, place[1] + price, place[2], place[3])
