"""One batch of metric points, as a supervisor sends it. Pure.

Points are checked a column at a time: a look at each point in Python would cost more than all the
rest of storing it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from api.errors import MalformedJson
from api.metrics.points import NON_FINITE, Points
from scheduler.core.errors import Invalid, Problem

POINTS_MAX = 10_000
LINES_MAX = 100_000
KEY_LENGTH_MAX = 128

_MEMBERS = frozenset({"stream", "sequence", "count", "columns"})
_COLUMN_MEMBERS = frozenset({"steps", "times", "values"})
_STREAM = re.compile(r"(0|[1-9][0-9]{0,5})")
_INT64 = range(-(2**63), 2**63)
_LARGEST_FLOAT = int(sys.float_info.max)


class InvalidBatch(Invalid):
    """A metric batch that cannot be stored; resending it does not help."""

    code = "invalid_batch"

    def __init__(self, pointer: str, code: str, message: str) -> None:
        super().__init__(
            "the metric batch cannot be stored: see `errors`",
            problems=[Problem(pointer, code, message)],
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one rank, and which spool lines they come from.

    Attributes:
        stream: the rank as text.
        sequence: how many lines of the stream came before.
        count: how many lines these are.
    """

    stream: str
    rank: int
    sequence: int
    count: int
    columns: dict[str, Points]


def parse_batch(body: bytes) -> Batch:
    """Return the batch that a JSON text says.

    `api.strict.parse_json` would look at every number; here the columns are looked at instead.

    Raises:
        MalformedJson: it is no JSON.
        InvalidBatch: see `read_batch`.
    """
    try:
        document = json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except MalformedJson:
        raise
    except (ValueError, RecursionError):
        raise MalformedJson("the body is not JSON in UTF-8: check its syntax") from None
    return read_batch(document)


def read_batch(document: Any) -> Batch:
    """Return the batch that a JSON document says.

    Raises:
        InvalidBatch: the first thing that is wrong with it, by pointer.
    """
    if not isinstance(document, dict):
        raise InvalidBatch("", "bad_type", "send a JSON object")
    _check_members("", document, _MEMBERS)
    stream = document["stream"]
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream):
        raise InvalidBatch("/stream", "bad_stream", 'name the rank as text, such as "0"')
    sequence = _read_count("/sequence", document["sequence"], 2**62)
    count = _read_count("/count", document["count"], LINES_MAX)
    columns = document["columns"]
    if not isinstance(columns, dict):
        raise InvalidBatch("/columns", "bad_type", "send an object: metric key to columns")
    return Batch(stream, int(stream), sequence, count, _read_columns(columns))


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f'{name} is not JSON: send it as a text, "{name}"')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("an object has the same name twice: keep one of them")
    return members


def _read_columns(columns: Mapping[str, Any]) -> dict[str, Points]:
    read = {}
    num_points = 0
    for key, column in columns.items():
        pointer = f"/columns/{_escape(key)}"
        if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
            message = f"a metric key has 1 to {KEY_LENGTH_MAX} printable characters"
            raise InvalidBatch(pointer[:200], "bad_key", message)
        read[key] = points = _read_points(pointer, column)
        num_points += len(points)
        if num_points > POINTS_MAX:
            message = f"at most {POINTS_MAX} points in one batch: split it"
            raise InvalidBatch("/columns", "too_many_points", message)
    return read


def _read_points(pointer: str, column: Any) -> Points:
    if not isinstance(column, dict):
        raise InvalidBatch(pointer, "bad_type", "send an object of steps, times and values")
    _check_members(pointer, column, _COLUMN_MEMBERS)
    steps, times, values = column["steps"], column["times"], column["values"]
    for name, part in (("steps", steps), ("times", times), ("values", values)):
        if not isinstance(part, list):
            raise InvalidBatch(f"{pointer}/{name}", "bad_type", "send a list")
    if not len(steps) == len(times) == len(values):
        raise InvalidBatch(pointer, "unequal_columns", "steps, times and values differ in length")
    return Points(
        _read_steps(f"{pointer}/steps", steps),
        _read_times(f"{pointer}/times", times),
        _read_values(f"{pointer}/values", values),
    )


def _read_steps(pointer: str, steps: list[Any]) -> array[int]:
    if set(map(type, steps)) <= {int}:
        try:
            return array("q", steps)
        except OverflowError:
            pass
    index = next(i for i, step in enumerate(steps) if type(step) is not int or step not in _INT64)
    raise InvalidBatch(f"{pointer}/{index}", "bad_step", "a step is an integer below 2^63")


def _read_times(pointer: str, times: list[Any]) -> array[float]:
    if set(map(type, times)) <= {int, float}:
        try:
            read = array("d", times)
        except OverflowError:
            pass
        else:
            if all(map(math.isfinite, read)):
                return read
    index = next(i for i, time in enumerate(times) if not _is_finite(time))
    raise InvalidBatch(f"{pointer}/{index}", "bad_time", "a time is Unix seconds, a finite number")


def _read_values(pointer: str, values: list[Any]) -> array[float]:
    types = set(map(type, values))
    if types <= {int, float, str}:
        try:
            if str not in types:
                return array("d", values)
            return array("d", (NON_FINITE[v] if type(v) is str else v for v in values))
        except (OverflowError, KeyError):
            pass
    index = next(i for i, value in enumerate(values) if not _is_value(value))
    message = 'a value is a number, or one of "NaN", "Infinity", "-Infinity"'
    raise InvalidBatch(f"{pointer}/{index}", "bad_value", message)


def _check_members(pointer: str, document: Mapping[str, Any], members: frozenset[str]) -> None:
    for name in _iter_sorted(members - document.keys()):
        raise InvalidBatch(f"{pointer}/{name}", "missing", "this member is required")
    for name in _iter_sorted(document.keys() - members):
        message = f"unknown member; known: {', '.join(sorted(members))}"
        raise InvalidBatch(f"{pointer}/{_escape(name)}"[:200], "unknown_field", message)


def _iter_sorted(names: set[str] | frozenset[str]) -> Iterator[str]:
    yield from sorted(names)


def _read_count(pointer: str, value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise InvalidBatch(pointer, "bad_count", f"an integer from 0 to {maximum}")
    return value


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in {int, float} and math.isfinite(value)
    except OverflowError:
        return False


def _is_value(value: Any) -> bool:
    if type(value) is str:
        return value in NON_FINITE
    if type(value) is int:
        return abs(value) <= _LARGEST_FLOAT
    return type(value) is float


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
