"""Whole-number logarithms and decay, beside those of the standard library."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.octaves import OCTAVE, count_octaves, halve, scale


@given(st.integers(1, 1 << 80))
def test_octaves_are_the_logarithm_rounded_down(value: int) -> None:
    exact = math.log2(value) * OCTAVE

    # One unit of ten bits, and what thirty bits lose by ten squarings.
    assert exact - 1.001 <= count_octaves(value) <= exact + 0.001


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_octaves_never_fall_while_the_value_grows(value: int, more: int) -> None:
    assert count_octaves(value) <= count_octaves(value + more)


@pytest.mark.parametrize("exponent", [0, 1, 10, 29, 30, 31, 64])
def test_powers_of_two_are_exact(exponent: int) -> None:
    assert count_octaves(1 << exponent) == exponent * OCTAVE


@given(st.integers(1 << 30, 1 << 60), st.integers(0, 20 * 7 * 86_400_000))
def test_decay_is_within_a_thousandth(value: int, elapsed_ms: int) -> None:
    half_life_ms = 7 * 86_400_000

    exact = value * 0.5 ** (elapsed_ms / half_life_ms)

    assert halve(value, elapsed_ms, half_life_ms) == pytest.approx(exact, rel=1e-3, abs=1)


def test_what_was_long_ago_is_nothing() -> None:
    assert halve(1 << 60, 1 << 50, 1000) == 0


@given(st.integers(1 << 30, 1 << 50), st.integers(-10 * OCTAVE, 10 * OCTAVE))
def test_scaling_is_within_seven_hundredths(value: int, octaves: int) -> None:
    exact = value * 2 ** (octaves / OCTAVE)

    assert exact * 0.999 <= scale(value, octaves) <= exact * 1.07
