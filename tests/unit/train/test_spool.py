"""Metrics on their way to disk."""

import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from trainmaster._spool import STEP_MAX, Spool, clean_step, clean_values, only_finite, spell


class Scalar:
    """What numpy scalars and tensors look like."""

    def __init__(self, value: Any, shape: tuple[int, ...] = ()) -> None:
        self._value, self.shape = value, shape

    def item(self) -> Any:
        return self._value


def test_a_line_holds_step_time_and_values(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "0.jsonl"))

    spool.append(3, 12.5, {"train/loss": 0.1, "correct": 7})
    spool.append(4, 13.0, {"train/loss": math.nan})

    first, second = (tmp_path / "0.jsonl").read_text().splitlines()
    assert json.loads(first) == {
        "step": 3,
        "time": 12.5,
        "values": {"train/loss": 0.1, "correct": 7},
    }
    assert math.isnan(json.loads(second)["values"]["train/loss"])


def test_doubles_come_back_to_the_last_bit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    Spool(str(tmp_path / "0.jsonl")).append(0, 0.0, {"x": value})

    line = json.loads((tmp_path / "0.jsonl").read_text())

    assert line["values"]["x"] == value


def test_a_line_is_written_at_once_and_by_appending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    path = tmp_path / "0.jsonl"
    path.write_text("before\n")

    Spool(str(path)).append(1, 2.0, {f"metric-{number}": 1.0 for number in range(500)})

    assert len(written) == 1
    assert path.read_bytes() == b"before\n" + written[0]


def test_a_line_that_the_disk_takes_in_parts_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:7]))

    Spool(str(tmp_path / "0.jsonl")).append(1, 2.0, {"loss": 1.0})

    assert json.loads((tmp_path / "0.jsonl").read_text())["values"] == {"loss": 1.0}


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param(3, 3, id="an integer"),
        pytest.param(0.5, 0.5, id="a float"),
        pytest.param(True, 1, id="a bool counts as 0 or 1"),
        pytest.param(Scalar(0.25), 0.25, id="a scalar of no dimension"),
        pytest.param(Scalar(True), 1, id="a truth value of no dimension"),
        pytest.param(2**60, float(2**60), id="an integer that a double rounds"),
        pytest.param(math.inf, math.inf, id="infinity"),
    ],
)
def test_numbers_are_kept(value: Any, want: float) -> None:
    cleaned = clean_values({"x": value})["x"]

    assert cleaned == want
    assert type(cleaned) is type(want)


@pytest.mark.parametrize(
    ("value", "error", "advice"),
    [
        pytest.param("0.5", TypeError, "log int, float, bool", id="text"),
        pytest.param(None, TypeError, "log int, float, bool", id="nothing"),
        pytest.param([1.0], TypeError, "log int, float, bool", id="a list"),
        pytest.param(1j, TypeError, "log int, float, bool", id="a complex number"),
        pytest.param(Fraction(1, 2), TypeError, "log int, float, bool", id="a fraction"),
        pytest.param(Scalar(1.0, (1,)), TypeError, "value.item()", id="an array of one"),
        pytest.param(Scalar(1.0, (8, 3)), TypeError, "value.mean()", id="an array of many"),
        pytest.param(Scalar(1j), TypeError, "not a real number", id="a complex scalar"),
        pytest.param(Scalar("a"), TypeError, "not a real number", id="a text scalar"),
        pytest.param(10**400, ValueError, "logarithm", id="an integer beyond all floats"),
    ],
)
def test_what_is_no_number_is_refused_with_advice(
    value: Any, error: type[Exception], advice: str
) -> None:
    with pytest.raises(error, match=r"^loss ") as refusal:
        clean_values({"loss": value})

    assert advice in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param("", ValueError, id="empty"),
        pytest.param("x" * 129, ValueError, id="too long"),
        pytest.param("a\nb", ValueError, id="a line break"),
        pytest.param("\ud800", ValueError, id="half a character"),
        pytest.param(3, TypeError, id="a number"),
    ],
)
def test_names_that_nobody_could_read_are_refused(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="train/loss"):
        clean_values({name: 1.0})


def test_too_many_values_in_one_call_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 values"):
        clean_values({f"m{number}": 0.0 for number in range(1001)})


@pytest.mark.parametrize("step", [0, 1, STEP_MAX])
def test_steps_are_counted_from_zero(step: int) -> None:
    assert clean_step(step) == step


@pytest.mark.parametrize(
    ("step", "error"),
    [(True, TypeError), (1.0, TypeError), ("1", TypeError), (-1, ValueError), (2**53, ValueError)],
)
def test_what_is_no_step_is_refused(step: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^step is"):
        clean_step(step)


def test_nothing_is_ranked_by_a_value_that_is_not_finite() -> None:
    assert only_finite({"a": 1, "b": math.nan, "c": -math.inf, "d": 0.5}) == {"a": 1, "d": 0.5}


def test_what_json_has_no_number_for_is_spelled() -> None:
    got = spell({"a": 1, "b": math.nan, "c": -math.inf, "d": math.inf})

    assert got == {"a": 1, "b": "NaN", "c": "-Infinity", "d": "Infinity"}
