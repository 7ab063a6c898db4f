"""The laws of scheduling, over random histories; every pass checks the invariants as well.

What a single decision must not do is judged by `World`, in words: `faults`.
"""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.histories import (
    POLICIES,
    Event,
    History,
    Setup,
    hash_plans,
    live,
    make_events,
)

_events = st.lists(
    st.tuples(st.integers(0, 63), st.integers(0, 4095), st.integers(0, 4095)),
    min_size=1,
    max_size=60,
)
_setups = st.builds(Setup, policy=st.sampled_from(POLICIES), num_nodes=st.integers(1, 4))


@given(setup=_setups, events=_events)
def test_no_decision_breaks_a_law(setup: Setup, events: list[Event]) -> None:
    assert live(setup, events).faults == []


@pytest.mark.parametrize("seed", range(60))
def test_no_decision_of_a_long_history_breaks_a_law(seed: int) -> None:
    setup = Setup(policy=POLICIES[seed % len(POLICIES)], num_nodes=1 + seed % 4)

    world = live(setup, make_events(seed, 120))

    assert world.faults == []


@pytest.mark.parametrize("seed", range(60))
def test_what_is_lost_late_or_doubled_costs_latency_and_nothing_else(seed: int) -> None:
    setup = Setup(policy=POLICIES[seed % len(POLICIES)], num_nodes=1 + seed % 4, is_lossy=True)
    history = History(setup)

    for event in make_events(seed, 60):
        history.let(event)
    history.quiet()

    assert history.world.faults == []


def test_equal_histories_give_equal_decisions_byte_for_byte() -> None:
    first, second = (live(Setup(), make_events(7, 200)) for _ in range(2))

    assert [repr(plan) for plan in first.plans] == [repr(plan) for plan in second.plans]


def test_decisions_do_not_depend_on_the_seed_of_hashes() -> None:
    command = [sys.executable, "-m", "tests.unit.core.histories", "7"]

    hashes = {
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert hashes == {hash_plans(live(Setup(), make_events(7, 200)))}
