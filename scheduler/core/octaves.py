"""Logarithms to base 2 in whole numbers, so that keys compare alike on every machine. Pure."""

from __future__ import annotations

OCTAVE = 1024
"""Units of one doubling: keys are counted in 1/1024 octaves."""

_BITS = 10
_ONE = 1 << 30


def count_octaves(value: int) -> int:
    """Return `log2(value)` in units of 1/1024, rounded down; 0 for values below 1.

    Source:
        Digit by digit by repeated squaring (Knuth, TAOCP 1, 1.2.2, exercise 25); integers only.
    """
    if value < 2:
        return 0
    exponent = value.bit_length() - 1
    mantissa = value << 30 >> exponent if exponent < 30 else value >> (exponent - 30)
    fraction = 0
    for _ in range(_BITS):
        mantissa = mantissa * mantissa >> 30
        fraction <<= 1
        if mantissa >= _ONE << 1:
            mantissa >>= 1
            fraction |= 1
    return exponent * OCTAVE + fraction


def scale(value: int, octaves: int) -> int:
    """Return `value` times 2 to the power of `octaves` / 1024, rounded down.

    Between powers of two a straight line, which is at most 6 % too high.
    """
    whole, part = divmod(octaves, OCTAVE)
    scaled = value * (OCTAVE + part) // OCTAVE
    return scaled << whole if whole >= 0 else scaled >> -whole


def halve(value: int, elapsed_ms: int, half_life_ms: int) -> int:
    """Return `value` after `elapsed_ms` of exponential decay, rounded down.

    Args:
        value: >= 0.
        elapsed_ms: >= 0; linear between the powers of two of sixteenths of a half-life, which is
            within 0.02 % of the exact value.
    """
    sixteenths, rest = divmod(elapsed_ms * 16, half_life_ms)
    halvings, step = divmod(sixteenths, 16)
    if halvings > 200:
        return 0
    high, low = _SIXTEENTHS[step], _SIXTEENTHS[step + 1]
    factor = high - (high - low) * rest // half_life_ms
    return (value * factor >> 30) >> halvings


# round(2**30 * 2**(-i / 16)) for i = 0 … 16
_SIXTEENTHS = (
    1073741824, 1028218693, 984625594, 942880699, 902905651, 864625413, 827968132, 792865000,
    759250125, 727060411, 696235434, 666717336, 638450708, 611382493, 585461881, 560640218,
    536870912,
)  # fmt: skip
