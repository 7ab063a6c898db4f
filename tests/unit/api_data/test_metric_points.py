"""Batches are checked whole, series are joined and thinned without losing what matters."""

from __future__ import annotations

import json
import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import MalformedJson
from api.metrics.batch import POINTS_MAX, InvalidBatch, parse_batch
from api.metrics.lineage import join_attempts
from api.metrics.points import Points, find_range, pack, unpack, write_number, write_numbers
from api.metrics.sampling import downsample

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.integers(-(2**63), 2**63 - 1)


def points_of(steps: list[int], values: list[float] | None = None) -> Points:
    values = [float(step) for step in steps] if values is None else values
    return Points(array("q", steps), array("d", steps), array("d", values))


def batch_of(**changes: Any) -> dict[str, Any]:
    column = {"steps": [1, 2], "times": [1.0, 2], "values": [0.5, "NaN"]}
    return {"stream": "0", "sequence": 0, "count": 2, "columns": {"loss": column}, **changes}


def column_of(**changes: Any) -> dict[str, Any]:
    column = {"steps": [1, 2], "times": [1.0, 2.0], "values": [0.5, 0.25], **changes}
    return batch_of(columns={"train/loss": column})


def test_a_good_batch_is_read_with_its_non_finite_values() -> None:
    batch = parse_batch(json.dumps(batch_of(stream="12")).encode())

    loss = batch.columns["loss"]
    assert (batch.rank, batch.sequence, batch.count) == (12, 0, 2)
    assert loss.steps.tolist() == [1, 2]
    assert loss.values[0] == 0.5
    assert math.isnan(loss.values[1])


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        pytest.param([], "", id="no object"),
        pytest.param(batch_of(extra=1), "/extra", id="an unknown member"),
        pytest.param({"stream": "0"}, "/columns", id="a missing member"),
        pytest.param(batch_of(stream=0), "/stream", id="a stream that is no text"),
        pytest.param(batch_of(stream="00"), "/stream", id="a rank with two names"),
        pytest.param(batch_of(sequence=-1), "/sequence", id="a negative sequence"),
        pytest.param(batch_of(sequence=True), "/sequence", id="a sequence that is no number"),
        pytest.param(batch_of(count=1.5), "/count", id="half a line"),
        pytest.param(batch_of(columns=[]), "/columns", id="columns in a list"),
        pytest.param(batch_of(columns={"": {}}), "/columns/", id="an empty key"),
        pytest.param(batch_of(columns={"a\nb": {}}), "/columns/a\nb", id="a key with a line end"),
        pytest.param(batch_of(columns={"k": []}), "/columns/k", id="a column in a list"),
        pytest.param(column_of(steps=[1, 2.0]), "/columns/train~1loss/steps/1", id="a float step"),
        pytest.param(column_of(steps=[1, True]), "/columns/train~1loss/steps/1", id="a true step"),
        pytest.param(column_of(steps=[1, 2**63]), "/columns/train~1loss/steps/1", id="2^63"),
        pytest.param(column_of(steps=[1]), "/columns/train~1loss", id="columns of other lengths"),
        pytest.param(column_of(times=[1, "NaN"]), "/columns/train~1loss/times/1", id="no time"),
        pytest.param(
            column_of(times=[1, 10**400]), "/columns/train~1loss/times/1", id="a far time"
        ),
        pytest.param(column_of(values=[1, None]), "/columns/train~1loss/values/1", id="no value"),
        pytest.param(
            column_of(values=[1, "nan"]), "/columns/train~1loss/values/1", id="nan in text"
        ),
        pytest.param(
            column_of(values=[10**400, 1]), "/columns/train~1loss/values/0", id="too large"
        ),
        pytest.param(column_of(values={}), "/columns/train~1loss/values", id="values in an object"),
        pytest.param(
            column_of(values=[1, [[]]]), "/columns/train~1loss/values/1", id="nested values"
        ),
    ],
)
def test_a_bad_batch_is_refused_with_a_pointer_to_the_fault(document: Any, pointer: str) -> None:
    with pytest.raises(InvalidBatch) as refused:
        parse_batch(json.dumps(document).encode())

    assert [problem.pointer for problem in refused.value.problems] == [pointer]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"1" * 5000],
    ids=["empty", "cut off", "no UTF-8", "NaN", "a name twice", "very deep", "a huge number"],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_batch(body)


def test_a_batch_has_a_limit_over_all_its_columns() -> None:
    half = {"steps": [0] * 5001, "times": [0] * 5001, "values": [0] * 5001}
    document = batch_of(columns={"a": half, "b": half})

    with pytest.raises(InvalidBatch, match="see `errors`") as refused:
        parse_batch(json.dumps(document).encode())

    assert str(POINTS_MAX) in refused.value.problems[0].message


@given(rows=st.lists(st.tuples(STEPS, st.floats(-1e9, 1e9), FLOATS)))
def test_packing_keeps_every_bit(rows: list[tuple[int, float, float]]) -> None:
    columns = [array("q", [row[0] for row in rows])]
    columns += [array("d", [row[index] for row in rows]) for index in (1, 2)]  # type: ignore[misc]  # of floats

    back = unpack(*(pack(column) for column in columns))

    assert [back.steps.tobytes(), back.times.tobytes(), back.values.tobytes()] == [
        column.tobytes() for column in columns
    ]


def test_packed_columns_are_little_endian() -> None:
    assert pack(array("q", [1])) == struct.pack("<q", 1)
    assert pack(array("d", [0.1])) == struct.pack("<d", 0.1)


@given(values=st.lists(FLOATS))
def test_the_range_is_that_of_the_finite_values(values: list[float]) -> None:
    finite = [value for value in values if math.isfinite(value)]

    assert find_range(values) == ((min(finite), max(finite)) if finite else None)


@given(values=st.lists(FLOATS))
def test_numbers_are_written_as_json_carries_them(values: list[float]) -> None:
    written = json.loads(json.dumps(write_numbers(values), allow_nan=False))

    assert written == [write_number(value) for value in values]
    for value, text in zip(values, written, strict=True):
        assert struct.pack("<d", float(text)) == struct.pack("<d", value) or math.isnan(value)


@given(values=st.lists(FLOATS, max_size=300), limit=st.integers(1, 60))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], limit: int) -> None:
    points = points_of(list(range(len(values))), values)

    thin = downsample(points, limit)

    steps = thin.steps.tolist()
    assert len(steps) <= limit
    assert steps == sorted(set(steps))
    if values:
        assert steps[-1] == len(values) - 1
    numbers = [value for value in values if not math.isnan(value)]
    if limit >= 4 and numbers and values:
        kept = thin.values.tolist()
        assert steps[0] == 0
        assert {min(numbers), max(numbers)} <= set(kept)


def test_a_short_series_is_left_as_it_is() -> None:
    points = points_of([1, 2, 3])

    assert downsample(points, 3) is points


def test_steps_that_a_later_attempt_did_again_are_shown_once_as_it_did_them() -> None:
    first = points_of([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    resumed = points_of([3, 4, 5], [30.0, 40.0, 50.0])

    joined = join_attempts([first, resumed])

    assert joined.steps.tolist() == [1, 2, 3, 4, 5]
    assert joined.values.tolist() == [1.0, 2.0, 30.0, 40.0, 50.0]


def test_an_attempt_that_began_anew_replaces_all_before_it() -> None:
    joined = join_attempts([points_of([1, 2, 9]), points_of([4, 5]), points_of([1])])

    assert joined.steps.tolist() == [1]


def test_an_attempt_that_logged_nothing_replaces_nothing() -> None:
    joined = join_attempts([points_of([1, 2]), points_of([])])

    assert joined.steps.tolist() == [1, 2]


@given(st.lists(st.lists(st.integers(0, 20), max_size=10).map(sorted), max_size=5))
def test_a_joined_series_never_goes_back_between_attempts(attempts: list[list[int]]) -> None:
    joined = join_attempts([points_of(steps) for steps in attempts]).steps.tolist()

    assert joined == sorted(joined)
