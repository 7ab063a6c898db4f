"""Where to cut a row of things into parts that cost about the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster._balance import balance


def dearest(costs: list[int], bounds: list[int]) -> int:
    """Return the cost of the dearest part."""
    return max(sum(costs[first:stop]) for first, stop in itertools.pairwise(bounds))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_no_other_cut_has_a_cheaper_dearest_part(costs: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(costs)))

    bounds = balance(costs, parts)

    assert bounds[0] == 0
    assert bounds[-1] == len(costs)
    assert len(bounds) == parts + 1
    assert all(first < stop for first, stop in itertools.pairwise(bounds)), "no part is empty"
    every = itertools.combinations(range(1, len(costs)), parts - 1)
    assert dearest(costs, bounds) == min(
        dearest(costs, [0, *inside, len(costs)]) for inside in every
    )


@pytest.mark.parametrize(
    ("costs", "parts", "want"),
    [
        pytest.param([0, 4, 4, 4, 4, 0, 3], 2, [0, 3, 7], id="a light head balances a block"),
        pytest.param([0, 4, 4, 4, 4, 0, 9], 2, [0, 4, 7], id="a heavy head has fewer blocks"),
        pytest.param([5, 5, 5], 3, [0, 1, 2, 3], id="one each"),
    ],
)
def test_blocks_go_where_there_is_room(costs: list[int], parts: int, want: list[int]) -> None:
    assert balance(costs, parts) == want
