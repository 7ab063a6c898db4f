"""Spool lines become batches: exactly, whatever the lines hold and wherever sending resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from workers.supervisor.http import Refused
from workers.supervisor.link import Link
from workers.supervisor.spool import SpoolTail


class Store:
    """Keeps batches as the service does."""

    def __init__(self) -> None:
        self.high_water = 0
        self.batches: list[dict[str, Any]] = []

    def call(self, _method: str, _route: str, batch: dict[str, Any], **_options: Any) -> Any:
        json.dumps(batch, allow_nan=False)
        if batch["sequence"] + batch["count"] <= self.high_water:
            return {"high_water": self.high_water}
        if batch["sequence"] != self.high_water:
            raise Refused(409, {"code": "sequence_mismatch", "high_water": self.high_water})
        self.high_water += batch["count"]
        self.batches.append(batch)
        return {"high_water": self.high_water}

    def values(self, key: str) -> list[Any]:
        return [
            value
            for batch in self.batches
            for value in batch["columns"].get(key, {"values": []})["values"]
        ]


def line(step: int, **values: Any) -> str:
    return json.dumps({"step": step, "time": 1.5, "values": values}) + "\n"


def send_all(path: Path, store: Store) -> SpoolTail:
    tail = SpoolTail(path, 0)
    while tail.send(cast("Link", store)):
        pass
    return tail


@pytest.mark.parametrize(
    ("bad", "id_"),
    [
        ("not json\n", "what is not JSON"),
        ("[1]\n", "what is no object"),
        ('{"step": -1, "time": 1, "values": {"a": 1}}\n', "a negative step"),
        ('{"step": 9223372036854775808, "time": 1, "values": {"a": 1}}\n', "a step of 2^63"),
        ('{"step": 1, "time": NaN, "values": {"a": 1}}\n', "no time"),
        ('{"step": 1, "time": 1, "values": {"a": "text", "": 1, "b": null}}\n', "no numbers"),
        ('{"step": 1, "time": 1, "values": {"a": 1' + "0" * 400 + "}}\n", "an endless integer"),
        ("[" * 100_000 + "\n", "deep nesting"),
    ],
)
def test_a_line_that_says_nothing_counts_and_adds_nothing(
    bad: str, id_: str, tmp_path: Path
) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(line(0, a=1.0) + bad + line(2, a=3.0))
    store = Store()

    send_all(path, store)

    assert store.high_water == 3, id_
    assert store.values("a") == [1.0, 3.0]


def test_numbers_that_json_does_not_know_are_spelled(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(line(0, a=float("nan"), b=float("inf"), c=float("-inf"), d=True, e=2))
    store = Store()

    send_all(path, store)

    got = [store.values(key) for key in "abcde"]
    assert got == [["NaN"], ["Infinity"], ["-Infinity"], [1.0], [2.0]]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    whole = line(0, a=1.0)
    path.write_text(whole + whole[:10])
    store = Store()

    tail = send_all(path, store)
    assert store.high_water == 1
    path.write_text(whole + whole)
    tail.send(cast("Link", store))

    assert store.high_water == 2


def test_a_batch_has_at_most_ten_thousand_points(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(
        "".join(line(step, **{f"k{i}": 1.0 for i in range(300)}) for step in range(100))
    )
    store = Store()

    send_all(path, store)

    sizes = [sum(len(c["steps"]) for c in batch["columns"].values()) for batch in store.batches]
    assert max(sizes) <= 10_000
    assert sum(sizes) == 30_000


def test_one_line_with_too_many_points_is_cut_rather_than_stuck(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(line(0, **{f"k{i}": 1.0 for i in range(10_500)}) + line(1, a=1.0))
    store = Store()

    send_all(path, store)

    assert store.high_water == 2
    assert store.values("a") == [1.0]


@pytest.mark.parametrize("known", [0, 1, 7, 10])
def test_sending_goes_on_where_the_service_is(known: int, tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text("".join(line(step, a=float(step)) for step in range(10)))
    store = Store()
    store.high_water = known

    send_all(path, store)

    assert store.high_water == 10
    assert store.values("a") == [float(step) for step in range(known, 10)]


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    assert SpoolTail(path, 0).find_last_step() is None
    path.write_text(line(3, a=1.0) + line(4, a=1.0) + '{"step": 5')

    assert SpoolTail(path, 0).find_last_step() == 4


def test_a_name_that_the_service_refuses_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(line(0, **{"a" * 128: 1.0, "b" * 129: 2.0}))
    store = Store()

    send_all(path, store)

    assert [list(batch["columns"]) for batch in store.batches] == [["a" * 128]]
