"""What no waiting would bring: more than a quota allows at any time. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from models.queries.quotas import Caps
from scheduler.core.errors import Problem


def check_priority(priority: int, caps: Caps) -> Iterator[Problem]:
    """Yield why a job may not have such a priority."""
    if priority > caps.priority_max:
        message = (
            f"the quota allows {caps.priority_max} at most: ask for less, or have an admin raise it"
        )
        yield Problem("/priority", "priority_too_high", message)


def check_gpus(num_gpus: int, caps: Caps) -> Iterator[Problem]:
    """Yield why a gang may not hold so many GPUs."""
    if caps.limit_gpus is not None and num_gpus > caps.limit_gpus:
        message = (
            f"the job takes {num_gpus} GPUs, the quota allows {caps.limit_gpus} at once: use fewer "
            "workers, or have an admin raise it"
        )
        yield Problem("/workers", "beyond_quota", message)
