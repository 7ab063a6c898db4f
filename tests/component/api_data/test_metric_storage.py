"""Metric points are kept exactly once and bit by bit, and come back as one series."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from api.metrics.points import write_number
from api.metrics.store import CHUNK_POINTS
from models import MetricChunk
from scheduler.core.spec import JobSpec, RetrySpec
from tests.component.api_data.desk import ONE, Desk, Supervisor, ok, problem

SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RETRIED = JobSpec(
    recipe="image-classifier",
    workers=1,
    retry=RetrySpec(max_user_failures=9, backoff_seconds=0),
)
Pairs = list[tuple[int, float]]


def series(desk: Desk, job_id: str, key: str, **query: Any) -> Any:
    return desk.get(f"/v1/jobs/{job_id}/metrics", key=key, **query)


def read_events(desk: Desk, job_id: str, **query: str) -> list[dict[str, str]]:
    """Return the events of a stream that ends."""
    answer = desk.http.get(
        f"/v1/jobs/{job_id}/metrics/stream", params=query, headers=desk.admin
    )
    blocks = [block for block in answer.text.split("\n\n") if "event: " in block]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def test_a_batch_is_kept_and_read_back_bit_by_bit(desk: Desk) -> None:
    supervisor = desk.launch()
    values = [0.1, 1e-320, -0.0, 1.7976931348623157e308, "NaN", "Infinity", "-Infinity", 3]

    answer = supervisor.measure(0, {"train/loss": list(enumerate(values))})

    assert ok(answer) == {"high_water": 8}
    found = series(desk, supervisor.job_id, "train/loss")
    assert found["steps"] == list(range(8))
    assert found["times"] == [1000.0 + step for step in range(8)]
    assert found["values"] == values
    assert struct.pack("<d", found["values"][2]) == struct.pack("<d", -0.0)


def test_the_same_batch_again_changes_nothing(desk: Desk) -> None:
    supervisor = desk.launch()
    for _ in range(3):
        assert ok(supervisor.measure(0, {"loss": [(1, 0.5), (2, 0.25)]})) == {"high_water": 2}

    assert series(desk, supervisor.job_id, "loss")["count"] == 2


@pytest.mark.parametrize("sequence", [1, 3, 2**40])
def test_a_batch_that_does_not_follow_is_refused_with_the_mark(desk: Desk, sequence: int) -> None:
    supervisor = desk.launch()
    ok(supervisor.measure(0, {"loss": [(1, 0.5), (2, 0.25)]}))

    answer = supervisor.measure(sequence, {"loss": [(3, 0.1), (4, 0.1)]})

    assert problem(answer, 409) == "sequence_mismatch"
    assert answer.json()["high_water"] == 2


def test_lines_without_points_count(desk: Desk) -> None:
    supervisor = desk.launch()

    assert ok(supervisor.measure(0, {}, count=5)) == {"high_water": 5}
    assert ok(supervisor.measure(5, {"loss": [(1, 0.5)]})) == {"high_water": 6}


def test_every_rank_has_its_own_stream(desk: Desk) -> None:
    supervisor = desk.launch()

    ok(supervisor.measure(0, {"loss": [(1, 0.5)]}))
    ok(supervisor.measure(0, {"loss": [(1, 0.7)]}, rank=1))

    assert supervisor.measure(0, {"loss": [(1, 1.0)]}, rank=2).status_code == 422
    assert series(desk, supervisor.job_id, "loss")["values"] == [0.5]
    assert series(desk, supervisor.job_id, "loss", rank=1)["values"] == [0.7]


def test_a_refused_batch_says_what_is_wrong_and_where(desk: Desk) -> None:
    supervisor = desk.launch()

    answer = supervisor.measure(0, {"train/loss": [(1, 0.5), (2, "nan")]})

    assert problem(answer, 422) == "invalid_batch"
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/columns/train~1loss/values/1"
    assert ok(supervisor.measure(0, {"train/loss": [(1, 0.5)]})) == {"high_water": 1}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"stream": NaN}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"[" * 2000, "application/json", 400),
        (b" " * (1024 * 1024 + 1), "application/json", 413),
    ],
    ids=["NaN", "not said to be JSON", "deep", "large"],
)
def test_what_is_no_batch_at_all_is_refused(
    desk: Desk, body: bytes, kind: str, status: int
) -> None:
    supervisor = desk.launch()

    answer = supervisor.call("POST", "metrics", content=body, headers={"content-type": kind})

    problem(answer, status)


@SLOW
@given(
    batches=st.lists(
        st.dictionaries(
            st.sampled_from(["loss", "acc", "über/größe"]),
            st.lists(st.floats(width=64), min_size=1, max_size=4),
            max_size=3,
        ),
        max_size=6,
    ),
    faults=st.lists(st.sampled_from(["", "answer lost", "sent twice", "old one again", "ahead"])),
)
def test_whatever_the_network_does_the_points_are_those_that_were_logged(
    desk: Desk, batches: list[dict[str, list[float]]], faults: list[str]
) -> None:
    supervisor = desk.launch(ONE, desk.join())
    starts, lines = [], 0
    logged: dict[str, list[float]] = {}
    columns = []
    for batch in batches:
        starts.append(lines)
        count = max((len(values) for values in batch.values()), default=1)
        columns.append(({k: [(lines + i, write_number(v)) for i, v in enumerate(values)] for k, values in batch.items()}, count))  # fmt: skip  # noqa: E501  one row of a table
        for key, values in batch.items():
            logged.setdefault(key, []).extend(values)
        lines += count
    index = turn = 0
    while index < len(batches):
        fault = faults[turn % len(faults)] if faults and turn < 50 else ""
        turn += 1
        if fault == "ahead" and index + 1 < len(batches):
            answer = supervisor.measure(starts[index + 1], columns[index + 1][0], count=1)
            assert answer.status_code in {200, 409}
            if answer.status_code == 200:
                assert starts[index + 1] < answer.json()["high_water"]
            continue
        answer = supervisor.measure(starts[index], columns[index][0], count=columns[index][1])
        if fault == "sent twice":
            answer = supervisor.measure(starts[index], columns[index][0], count=columns[index][1])
        if fault == "old one again":
            ok(supervisor.measure(starts[0], columns[0][0], count=columns[0][1]))
        if fault != "answer lost":
            assert ok(answer)["high_water"] == starts[index] + columns[index][1]
            index += 1
    ok(supervisor.exit())

    for key, values in logged.items():
        found = series(desk, supervisor.job_id, key)["values"]
        assert found == [write_number(value) for value in values]
    streamed: dict[str, list[Any]] = {}
    for event in read_events(desk, supervisor.job_id)[:-1]:
        for point in json.loads(event["data"])["points"]:
            streamed.setdefault(point["key"], []).append(point["value"])
    assert streamed == {key: [write_number(v) for v in values] for key, values in logged.items()}


def log_many(supervisor: Supervisor, key: str, pairs: Pairs, size: int) -> None:
    for start in range(0, len(pairs), size):
        ok(supervisor.measure(start, {key: pairs[start : start + size]}))


@pytest.mark.parametrize("size", [7, 100, 1000, 5000])
def test_chunks_are_filled_up_and_keep_order_and_range(desk: Desk, size: int) -> None:
    supervisor = desk.launch()
    pairs = [(step, math.sin(step)) for step in range(700 if size == 7 else 5000)]

    log_many(supervisor, "loss", pairs, size)

    found = series(desk, supervisor.job_id, "loss")
    assert list(zip(found["steps"], found["values"], strict=True)) == pairs
    with desk.database.read() as session:
        num_chunks = session.scalar(select(func.count()).select_from(MetricChunk))
    assert num_chunks is not None
    assert num_chunks <= max(1, len(pairs) // min(size, CHUNK_POINTS) + 1)
    (summary,) = desk.get(f"/v1/jobs/{supervisor.job_id}/metrics")["data"]
    assert summary["count"] == len(pairs)
    assert summary["last"] == {"step": pairs[-1][0], "time": 1000.0 + pairs[-1][0], "value": pairs[-1][1]}
    assert (summary["min"], summary["max"]) == (min(v for _, v in pairs), max(v for _, v in pairs))


def test_a_long_series_is_thinned_but_its_peak_stays(desk: Desk) -> None:
    supervisor = desk.launch()
    pairs = [(step, 1.0) for step in range(4000)]
    pairs[1234] = (1234, 99.0)
    log_many(supervisor, "loss", pairs, 2000)

    found = series(desk, supervisor.job_id, "loss", points=50)

    assert found["count"] == 4000
    assert len(found["steps"]) <= 50
    assert 1234 in found["steps"]
    assert (found["steps"][0], found["steps"][-1]) == (0, 3999)


def test_steps_that_were_done_again_are_shown_once(desk: Desk) -> None:
    node = desk.join()
    first = desk.launch(RETRIED, node)
    ok(first.measure(0, {"loss": [(1, 1.0), (2, 2.0), (3, 3.0)], "lr": [(1, 0.1)]}))
    ok(first.exit("failed", "UserCodeError"))
    desk.schedule()
    second = node.take(first.job_id)
    ok(second.measure(0, {"loss": [(3, 30.0), (4, 40.0)]}))

    found = series(desk, first.job_id, "loss")
    assert (found["attempt"], found["steps"], found["values"]) == (
        None,
        [1, 2, 3, 4],
        [1.0, 2.0, 30.0, 40.0],
    )
    raw = series(desk, first.job_id, "loss", attempt=1)
    assert (raw["attempt"], raw["values"]) == (1, [1.0, 2.0, 3.0])
    summaries = desk.get(f"/v1/jobs/{first.job_id}/metrics")["data"]
    assert [(each["key"], each["count"], each["max"]) for each in summaries] == [
        ("loss", 4, 40.0),
        ("lr", 1, 0.1),
    ]
    points = [p for e in read_events_of_live(desk, second)[:-1] for p in json.loads(e["data"])["points"]]
    assert [(p["attempt"], p["value"]) for p in points if p["key"] == "loss"] == [
        (1, 1.0), (1, 2.0), (1, 3.0), (2, 30.0), (2, 40.0),
    ]  # fmt: skip


def read_events_of_live(desk: Desk, supervisor: Supervisor) -> list[dict[str, str]]:
    ok(supervisor.exit())
    return read_events(desk, supervisor.job_id)


def test_a_metric_that_nobody_has_logged_is_empty(desk: Desk) -> None:
    supervisor = desk.launch()

    found = series(desk, supervisor.job_id, "loss")

    assert (found["count"], found["steps"], found["values"]) == (0, [], [])
    assert desk.get(f"/v1/jobs/{supervisor.job_id}/metrics")["data"] == []


def test_a_series_is_of_the_lowest_rank_that_has_one(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.measure(0, {"loss": [(1, 0.5)]}, rank=1))

    found = series(desk, supervisor.job_id, "loss")

    assert (found["rank"], found["values"]) == (1, [0.5])


def test_a_summary_of_values_without_a_finite_one_has_no_range(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.measure(0, {"loss": [(1, "NaN"), (2, "Infinity")]}))

    (summary,) = desk.get(f"/v1/jobs/{supervisor.job_id}/metrics")["data"]

    assert (summary["min"], summary["max"], summary["last"]["value"]) == (None, None, "Infinity")


def test_a_stream_of_points_goes_on_exactly_behind_every_event(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.metrics.follow._PAGE_POINTS", 7)
    supervisor = desk.launch()
    for batch in range(4):
        for rank in (0, 1):
            pairs = [(batch * 10 + i, float(i)) for i in range(10)]
            ok(supervisor.measure(batch * 10, {"loss": pairs, "acc": pairs[:5]}, rank=rank))
    ok(supervisor.exit())
    events = read_events(desk, supervisor.job_id)
    points = [point for event in events[:-1] for point in json.loads(event["data"])["points"]]

    assert len(points) == 4 * 2 * 15
    assert len({json.dumps(point) for point in points}) == len(points)
    for index, event in enumerate(events[:-1]):
        rest = read_events(desk, supervisor.job_id, after=event["id"])
        assert [e["data"] for e in rest] == [e["data"] for e in events[index + 1 :]]


def test_a_stream_can_be_of_one_metric_and_rank(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.measure(0, {"loss": [(1, 0.5)], "acc": [(1, 0.9)]}))
    ok(supervisor.measure(0, {"loss": [(1, 0.7)]}, rank=1))
    ok(supervisor.exit())

    (event, _) = read_events(desk, supervisor.job_id, key="loss", rank="1")

    assert [point["value"] for point in json.loads(event["data"])["points"]] == [0.7]


@pytest.mark.parametrize(
    "query", ["points=0", "points=10001", "points=x", "rank=-1", "key=", "attempt=9", "stream=1"]
)
def test_a_bad_question_is_refused(desk: Desk, query: str) -> None:
    supervisor = desk.launch()

    answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/metrics?{query}", headers=desk.admin)

    assert answer.status_code in {400, 404}, answer.text


@pytest.mark.parametrize("after", ["x", "AAAA", "eNozAgAAMwAzz", "é", "a" * 17_000])
def test_a_place_in_the_stream_that_is_none_is_refused(desk: Desk, after: str) -> None:
    supervisor = desk.launch()
    path = f"/v1/jobs/{supervisor.job_id}/metrics/stream"

    answer = desk.http.get(path, params={"after": after}, headers=desk.admin)

    assert answer.status_code == 400, answer.text


def test_metrics_of_another_project_do_not_exist(desk: Desk) -> None:
    supervisor = desk.launch()
    stranger = desk.add_project("other")

    for path in ("metrics", "metrics?key=loss", "metrics/stream"):
        answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/{path}", headers=stranger)
        assert problem(answer, 404) == "not_found"
