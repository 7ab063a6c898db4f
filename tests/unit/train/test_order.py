"""Which samples make up which step."""

import collections
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster._order import Batch, Cursor, Plan, leave_loop, order_keys, share_of, shuffled

sizes = st.integers(1, 300)
seeds = st.integers(0, 2**32 - 1)


def plan_of(
    size: int = 10,
    batch_size: int = 4,
    epochs: int | None = 2,
    steps: int | None = None,
    seed: int = 0,
) -> Plan:
    """Return a loop over shuffled data."""
    return Plan((seed, size, True), batch_size, epochs, steps)


def samples_of(plan: Plan, batch: Batch) -> list[int]:
    """Return the samples of a batch, in order."""
    seed, size, _ = plan.order
    keys = order_keys(seed, batch.epoch)
    return [shuffled(batch.first + place, size, keys) for place in range(batch.count)]


@given(size=sizes, seed=seeds, epoch=st.integers(0, 1000))
def test_each_sample_has_one_place_in_an_epoch(size: int, seed: int, epoch: int) -> None:
    keys = order_keys(seed, epoch)

    order = [shuffled(position, size, keys) for position in range(size)]

    assert sorted(order) == list(range(size))


def test_a_large_epoch_is_a_permutation_too() -> None:
    size = 2**17 + 1  # the most wasteful size: almost half of the network's range lies outside
    keys = order_keys(3, 5)

    assert len({shuffled(position, size, keys) for position in range(size)}) == size


def test_every_sample_comes_first_equally_often_over_the_seeds() -> None:
    size, num_seeds = 10, 4000

    firsts = collections.Counter(
        shuffled(0, size, order_keys(seed, 0)) for seed in range(num_seeds)
    )

    # A binomial count of 4000 x 1/10 has a deviation of 19; 5 of them miss 1 in 10^6 times.
    assert all(abs(firsts[sample] - num_seeds / size) < 95 for sample in range(size))


def test_neighbours_of_the_dataset_are_not_neighbours_of_the_order() -> None:
    size = 4096
    keys = order_keys(0, 0)
    order = [shuffled(position, size, keys) for position in range(size)]

    neighbours = sum(abs(one - other) == 1 for one, other in pairwise(order))

    # Two random places are neighbours with probability 2 / size: 2 are expected.
    assert neighbours < 12


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(shuffled(position, 50, order_keys(seed, epoch)) for position in range(50))
        for seed in range(3)
        for epoch in range(3)
    }

    assert len(orders) == 9


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    # Written down once; a run resumed with a newer version must go on where it was.
    assert [shuffled(position, 10, order_keys(7, 2)) for position in range(10)] == [
        1, 5, 6, 4, 8, 2, 7, 3, 0, 9,
    ]  # fmt: skip


@given(count=st.integers(0, 500), num_replicas=st.integers(1, 40))
def test_the_shares_of_a_batch_are_each_sample_once(count: int, num_replicas: int) -> None:
    shares = [share_of(count, replica, num_replicas) for replica in range(num_replicas)]

    assert [sample for share in shares for sample in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(
    size=sizes,
    batch_size=st.integers(1, 80),
    epochs=st.integers(1, 4),
    seed=seeds,
)
def test_each_sample_is_used_once_per_epoch(
    size: int, batch_size: int, epochs: int, seed: int
) -> None:
    plan = plan_of(size, batch_size, epochs, seed=seed)

    used = collections.Counter(
        (batch.epoch, sample)
        for batch in plan.batches(plan.enter(Cursor()))
        for sample in samples_of(plan, batch)
    )

    assert used == {(epoch, sample): 1 for epoch in range(epochs) for sample in range(size)}


@given(
    size=sizes,
    batch_size=st.integers(1, 80),
    epochs=st.none() | st.integers(1, 4),
    steps=st.integers(1, 60),
    stop=st.integers(0, 60),
)
def test_a_resumed_loop_takes_the_steps_that_were_left(
    size: int, batch_size: int, epochs: int | None, steps: int, stop: int
) -> None:
    plan = plan_of(size, batch_size, epochs, steps)
    whole = list(plan.batches(plan.enter(Cursor())))
    stop = min(stop, len(whole))
    cursor = whole[stop - 1].after if stop else Cursor()

    rest = list(plan.batches(plan.enter(Cursor.from_dict(cursor.to_dict()))))

    assert rest == whole[stop:]


@given(size=sizes, batch_size=st.integers(1, 80), before=st.integers(1, 80), stop=st.integers(1, 9))
def test_another_batch_size_after_a_resume_still_uses_each_sample_once(
    size: int, batch_size: int, before: int, stop: int
) -> None:
    first, second = plan_of(size, before, 2), plan_of(size, batch_size, 2)
    begun = list(first.batches(first.enter(Cursor())))[:stop]

    rest = list(second.batches(second.enter(begun[-1].after)))

    used = collections.Counter(
        (batch.epoch, sample) for batch in begun + rest for sample in samples_of(first, batch)
    )
    assert used == {(epoch, sample): 1 for epoch in range(2) for sample in range(size)}


@given(size=sizes, batch_size=st.integers(1, 80), epochs=st.integers(1, 4))
def test_the_number_of_steps_is_known_before_they_are_taken(
    size: int, batch_size: int, epochs: int
) -> None:
    plan = plan_of(size, batch_size, epochs)

    assert plan.steps_total == len(list(plan.batches(plan.enter(Cursor()))))


@pytest.mark.parametrize(
    ("epochs", "steps", "want"),
    [
        pytest.param(2, None, 6, id="epochs alone"),
        pytest.param(None, 5, 5, id="steps alone, in the middle of an epoch"),
        pytest.param(2, 4, 4, id="steps end before the epochs"),
        pytest.param(1, 100, 3, id="epochs end before the steps"),
    ],
)
def test_a_loop_ends_with_what_comes_first(
    epochs: int | None, steps: int | None, want: int
) -> None:
    plan = plan_of(10, 4, epochs, steps)

    batches = list(plan.batches(plan.enter(Cursor())))

    assert len(batches) == plan.steps_total == want


def test_one_loop_of_two_epochs_takes_the_batches_of_two_loops_of_one() -> None:
    together = plan_of(10, 4, 2)
    apart = plan_of(10, 4, 1)
    first = list(apart.batches(apart.enter(Cursor())))
    second = list(apart.batches(apart.enter(leave_loop(first[-1].after))))

    want = [(b.epoch, b.first, b.count) for b in together.batches(together.enter(Cursor()))]

    assert [(b.epoch, b.first, b.count) for b in first + second] == want


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((1, 10, True), id="another seed"),
        pytest.param((0, 11, True), id="another dataset"),
        pytest.param((0, 10, False), id="no longer shuffled"),
    ],
)
def test_a_position_in_another_order_means_nothing(other: tuple[int, int, bool]) -> None:
    plan = plan_of(10, 4, 2)
    cursor = next(plan.batches(plan.enter(Cursor()))).after

    entered = Plan(other, 4, 2, None).enter(cursor)

    assert (entered.epoch, entered.position, entered.step) == (0, 0, 1)
