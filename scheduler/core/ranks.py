"""Who goes before whom, over all lines: one total order for starting and for evicting. Pure.

Guaranteed before borrowed, then priority, then the key with what its project and user pay for
having had more than their share, then submit order. It is one order on purpose: a preemptor stands
above its victim before and after the exchange, so the victim can never take the places back.
"""

from __future__ import annotations

from scheduler.core.lines import Place
from scheduler.core.tenants import Tenant, Tenants

Rank = tuple[int, int, int, int, str]
"""(1 when borrowed, -priority, priced key, submit order, id): smaller goes first."""


def rank_waiting(place: Place, num_gpus: int, tenants: Tenants, project: str, user: str) -> Rank:
    """Return the rank of a job that waits: guaranteed if it would fit into what is.

    What is kept for other jobs of its project counts as if they ran.
    """
    tenant = tenants.get(project)
    quota = tenant.quota
    num_after = tenant.num_gpus + tenant.num_kept + num_gpus
    is_borrowed = not quota.guaranteed_gpus or num_after > quota.guaranteed_gpus
    return _rank(place, is_borrowed, tenants, tenant, project, user)


def rank_running(place: Place, num_gpus: int, tenants: Tenants, project: str, user: str) -> Rank:
    """Return the rank of a job that runs: guaranteed if its project would lose of what is.

    Args:
        num_gpus: of the job, and of all others of its project that are to go with it.
    """
    tenant = tenants.get(project)
    quota = tenant.quota
    num_after = tenant.num_gpus - tenant.num_leaving - num_gpus
    is_borrowed = not quota.guaranteed_gpus or num_after >= quota.guaranteed_gpus
    return _rank(place, is_borrowed, tenants, tenant, project, user)


def _rank(
    place: Place, is_borrowed: bool, tenants: Tenants, tenant: Tenant, project: str, user: str
) -> Rank:
    priority = max(place[0], -tenant.quota.priority_max)
    price = tenant.overshare + (tenants.get(project, user).overshare if user else 0)
    return (int(is_borrowed), priority, place[1] + price, place[2], place[3])


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
