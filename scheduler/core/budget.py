"""Whether GPU-hours are left: those of a job, and the month's of its project and user. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core.reasons import Reason
from scheduler.core.spec import Limits
from scheduler.core.usage import hours_to_ms

MONTH_IS_SPENT = (
    "the GPU-hours of its project or user for this month are used: "
    "resume it next month, or have an admin raise gpu_hours_per_month of the quota"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthBudget:
    """The GPU-hours of one quota in the present month.

    Attributes:
        budget_gpu_ms: None: no budget.
        spent_gpu_ms: by ended attempts and by those that run.
    """

    budget_gpu_ms: int | None
    spent_gpu_ms: int

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of it."""
        return self.budget_gpu_ms is not None and self.spent_gpu_ms >= self.budget_gpu_ms


def find_spent(
    gpu_hours: float | None, *, gpu_ms: int, months: Iterable[MonthBudget]
) -> Reason | None:
    """Return why a job may use no GPU any more, None while it may.

    Args:
        gpu_hours: its own limit, None when it has none.
        gpu_ms: what all attempts of the job have used, including the one that runs.
        months: of its project and of its user.
    """
    if gpu_hours is not None and gpu_ms >= hours_to_ms(gpu_hours):
        return Reason.BUDGET_REACHED
    if any(month.is_spent for month in months):
        return Reason.BUDGET_SPENT
    return None


def describe_spent(limits: Limits) -> str:
    """Return the fact and the way out, for a job that has used its own GPU-hours."""
    hours = limits.gpu_hours or 0.0
    return (
        f"has used limits.gpu_hours = {hours:g}: "
        "raise it with PATCH /v1/jobs/{id}, then resume the job"
    )
