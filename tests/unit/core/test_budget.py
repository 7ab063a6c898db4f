"""Whether GPU-hours are left."""

import pytest

from scheduler.core.budget import MonthBudget, find_spent
from scheduler.core.reasons import Reason
from scheduler.core.usage import HOUR_MS

SPENT = MonthBudget(budget_gpu_ms=HOUR_MS, spent_gpu_ms=HOUR_MS)
LEFT = MonthBudget(budget_gpu_ms=HOUR_MS, spent_gpu_ms=HOUR_MS - 1)
FREE = MonthBudget(budget_gpu_ms=None, spent_gpu_ms=HOUR_MS)


@pytest.mark.parametrize(
    ("gpu_hours", "gpu_ms", "months", "want"),
    [
        pytest.param(None, HOUR_MS, [], None, id="no limit at all"),
        pytest.param(1.0, HOUR_MS - 1, [LEFT, FREE], None, id="a little is left of each"),
        pytest.param(1.0, HOUR_MS, [], Reason.BUDGET_REACHED, id="its own is used"),
        pytest.param(None, 0, [LEFT, SPENT], Reason.BUDGET_SPENT, id="one month's is used"),
        pytest.param(1.0, HOUR_MS, [SPENT], Reason.BUDGET_REACHED, id="its own comes first"),
    ],
)
def test_a_budget_is_spent_when_nothing_is_left(
    gpu_hours: float | None, gpu_ms: int, months: list[MonthBudget], want: Reason | None
) -> None:
    assert find_spent(gpu_hours, gpu_ms=gpu_ms, months=months) is want
