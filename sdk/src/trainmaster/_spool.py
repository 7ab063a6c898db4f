"""Metrics on their way to disk: one line per call, one write per line.

The line is in the kernel's hands before `append` returns, so a rank that is killed the moment
after has lost nothing. Knows nothing of who reads the file, and never waits for anybody.
"""

from __future__ import annotations

import json
import math
import operator
import os
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from collections.abc import Mapping

Number = Union[int, float]

NAME_CHARACTERS_MAX = 128  # the service takes no longer ones
STEP_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
OWN_METRICS = ("comm/", "sync/", "time/")  # how these names begin that we record ourselves
VALUES_PER_LINE_MAX = 1000


class Spool:
    """An append-only file of metric lines, opened by the first of them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    def append(self, step: int, time_s: float, values: Mapping[str, Number]) -> None:
        """Add one line.

        Args:
            step: as given by `clean_step`.
            time_s: when the values were taken, in Unix seconds.
            values: as given by `clean_values`; NaN and infinities are kept as they are.

        Raises:
            OSError: the disk is full or the file cannot be opened.
        """
        record = {"step": step, "time": time_s, "values": values}
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._fd is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        written = os.write(self._fd, line)
        while written < len(line):  # only a disk that is filling up splits a line
            written += os.write(self._fd, line[written:])


def clean_step(step: Any) -> int:
    """Return the step as a plain int, or say what is wrong with it.

    Raises:
        TypeError: it is no integer.
        ValueError: it is negative or beyond 2^53 - 1.
    """
    if isinstance(step, bool):
        raise TypeError("step is a bool; give the number of the step")
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(
            f"step is a {type(step).__name__}; give an integer, for example int(step)"
        ) from None
    if not 0 <= number <= STEP_MAX:
        raise ValueError(f"step is {number}; give a number from 0 to {STEP_MAX}")
    return number


def clean_values(values: Mapping[str, Any]) -> dict[str, Number]:
    """Return the metrics as plain numbers by name, or say which of them is none.

    Numbers are int, float, bool (kept as 0 or 1) and anything of no dimension that has
    `item()`: 0-d tensors and numpy scalars. Reading a tensor waits for the device it is on.

    Raises:
        TypeError: a value is no single number, or a name is no text.
        ValueError: a name is empty, too long or unprintable, or there are too many values.
    """
    if len(values) > VALUES_PER_LINE_MAX:
        raise ValueError(
            f"{len(values)} values in one call; at most {VALUES_PER_LINE_MAX}: "
            "summarize them, or write them to a file in the checkpoint"
        )
    return {_clean_name(name): _clean_value(name, value) for name, value in values.items()}


def only_finite(values: Mapping[str, Number]) -> dict[str, Number]:
    """Return the values without NaN and infinities, by which nothing can be ranked."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def spell(values: Mapping[str, Number]) -> dict[str, Number | str]:
    """Return the values as JSON has them: NaN and infinities by their names."""
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return {
        name: value if math.isfinite(value) else names.get(value, "NaN")
        for name, value in values.items()
    }


def _clean_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a metric is named {name!r}; names are text, such as 'train/loss'")
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise ValueError(
            f"a metric is named {name[:40]!r}; "
            f"use 1 to {NAME_CHARACTERS_MAX} printable characters, such as 'train/loss'"
        )
    return name


def _clean_value(name: str, value: Any) -> Number:
    number = value
    if not isinstance(value, (int, float)):
        if getattr(value, "shape", None) is None or not hasattr(value, "item"):
            raise TypeError(
                f"{name} is a {type(value).__name__}, not a number: "
                "log int, float, bool, or a tensor or array of no dimension"
            )
        if len(value.shape) > 0:
            raise TypeError(
                f"{name} has the shape {tuple(value.shape)}, not a single number: "
                "log value.mean(), or value.item() if it holds one element"
            )
        number = value.item()
        if not isinstance(number, (int, float)):
            raise TypeError(
                f"{name} holds a {type(number).__name__}, not a real number: log a part of it"
            )
    if isinstance(number, float):
        return float(number)
    if -STEP_MAX <= number <= STEP_MAX:
        return int(number)
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{name} is beyond the range of a float: log its logarithm") from None
