"""The laws of scheduling, over random histories; every pass checks the invariants as well.

What a single decision must not do is judged by `World`, in words: `faults`.
"""

import dataclasses
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.decisions import Admit, Decision, Hold, Keep, Plan, Preempt, Start
from scheduler.core.deltas import Observed
from scheduler.core.eligibility import find_cap, find_hold
from scheduler.core.placement import place
from scheduler.core.reservation import Reserver
from scheduler.core.state import State
from scheduler.core.step import step
from tests.unit.core.histories import (
    POLICIES,
    Event,
    History,
    Setup,
    hash_plans,
    live,
    make_events,
)
from tests.unit.core.world import World

# Reasons are told in portions, and guarantees are worked out once a minute.
_MOVES = (Start, Preempt, Keep, Admit, Hold)

_events = st.lists(
    st.tuples(st.integers(0, 63), st.integers(0, 4095), st.integers(0, 4095)),
    min_size=1,
    max_size=60,
)
_setups = st.builds(Setup, policy=st.sampled_from(POLICIES), num_nodes=st.integers(1, 4))


def find_idle_places(world: World) -> list[str]:
    """Return who could start where, though nothing moves any more."""
    state = State(world.policy)
    state.apply(Observed(view=world.observe()), world.now_ms)
    reserver = Reserver(state, world.now_ms, [])
    found = []
    for job_id, entry in sorted(state.jobs.items()):
        view = entry.view
        if not view.is_waiting or view.claim is not None:
            continue
        if find_hold(view, state.queues, world.now_ms) or find_cap(view, state.tenants):
            continue
        free = place(view.shape, view.pool, state.nodes, reserver.find_allowed(entry))
        if free is not None:
            found.append(f"{job_id}: {free}")
    return found


def _moves(plan: Plan) -> list[Decision]:
    return [
        dataclasses.replace(one, version=0) for one in plan.decisions if isinstance(one, _MOVES)
    ]


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


@pytest.mark.parametrize("seed", range(40))
def test_no_job_waits_while_there_is_a_place_that_it_may_have(seed: int) -> None:
    setup = Setup(policy=POLICIES[seed % len(POLICIES)], num_nodes=1 + seed % 4)
    history = History(setup)

    for event in make_events(seed, 60):
        history.let(event)

        assert find_idle_places(history.world) == []


@pytest.mark.parametrize("seed", range(40))
def test_a_state_that_followed_deltas_decides_like_one_that_is_built_anew(seed: int) -> None:
    setup = Setup(policy=POLICIES[seed % len(POLICIES)], num_nodes=1 + seed % 4)
    history = History(setup)

    for event in make_events(seed, 60):
        history.act(event)
        world = history.world
        rebuilt = State(world.policy)
        _, expected = step(rebuilt, [Observed(view=world.observe())], world.now_ms)
        plan = world.run_pass()
        history.world.settle()

        assert _moves(plan) == _moves(expected)


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
