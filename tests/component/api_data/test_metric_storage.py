"""Metric points are kept exactly once and bit by bit, and come back as one series."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
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
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    answer = desk.http.get(f"/v1/jobs/{job_id}/metrics/stream", params=query, headers=desk.admin)
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


def test_a_batch_that_does_not_follow_is_refused_with_the_mark(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.measure(0, {"loss": [(1, 0.5), (2, 0.25)]}))

    for sequence in (1, 3, 2**40):
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


def test_what_is_no_batch_at_all_is_refused(desk: Desk) -> None:
    supervisor = desk.launch()

    for body, kind, status in [
        (b'{"stream": NaN}', "application/json", 400),
        (b"[" * 2000, "application/json", 400),
        (b" " * (1024 * 1024 + 1), "application/json", 413),
        (b"{}", "text/plain", 415),
    ]:
        answer = supervisor.call("POST", "metrics", content=body, headers={"content-type": kind})
        problem(answer, status)


@dataclass
class Sent:
    """One batch of a sender: where its lines begin, how many there are, what they hold."""

    sequence: int
    count: int
    columns: dict[str, list[tuple[int, Any]]]


def cut_into_batches(batches: list[dict[str, list[float]]]) -> list[Sent]:
    """Return the batches of a sender that logs these values, one batch after the other."""
    sent: list[Sent] = []
    line = 0
    for batch in batches:
        columns = {
            key: [(line + index, write_number(value)) for index, value in enumerate(values)]
            for key, values in batch.items()
        }
        count = max(map(len, columns.values()), default=1)
        sent.append(Sent(line, count, columns))
        line += count
    return sent


def send_over_a_bad_network(supervisor: Supervisor, batches: list[Sent], faults: list[str]) -> None:
    """Send as a supervisor does: again until there is an answer, then the next."""

    def send(index: int) -> Any:
        batch = batches[index]
        return supervisor.measure(batch.sequence, batch.columns, count=batch.count)

    index = 0
    for fault in [*faults, *([""] * len(batches))]:
        if index == len(batches):
            return
        if fault == "ahead" and index + 1 < len(batches):
            # Taken only if the batch before it is stored, of which the sender may not know.
            assert send(index + 1).status_code in {200, 409}
            continue
        answer = send(index)
        if fault == "sent twice":
            answer = send(index)
        if fault == "old one again":
            ok(send(0))
        if fault != "answer lost":
            assert ok(answer)["high_water"] >= batches[index].sequence + batches[index].count
            index += 1


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
    logged: dict[str, list[Any]] = {}
    for batch in batches:
        for key, values in batch.items():
            logged.setdefault(key, []).extend(map(write_number, values))

    send_over_a_bad_network(supervisor, cut_into_batches(batches), faults)
    ok(supervisor.exit())

    for key, values in logged.items():
        assert series(desk, supervisor.job_id, key)["values"] == values
    streamed: dict[str, list[Any]] = {}
    for event in read_events(desk, supervisor.job_id)[:-1]:
        for point in json.loads(event["data"])["points"]:
            streamed.setdefault(point["key"], []).append(point["value"])
    assert streamed == logged


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
    assert summary["last"] == {
        "step": pairs[-1][0],
        "time": 1000.0 + pairs[-1][0],
        "value": pairs[-1][1],
    }
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
    points = [
        p for e in read_events_of_live(desk, second)[:-1] for p in json.loads(e["data"])["points"]
    ]
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


def test_a_metric_that_nobody_has_logged_is_not_found_once_the_job_has_ended(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    ok(supervisor.measure(0, {"loss": [(1, 0.5)]}))
    ok(supervisor.exit())
    path = f"/v1/jobs/{supervisor.job_id}/metrics"

    answer = desk.http.get(path, params={"key": "los"}, headers=desk.admin)

    assert problem(answer, 404) == "not_found"
    assert "without `key`" in answer.json()["detail"]
    assert series(desk, supervisor.job_id, "loss")["values"] == [0.5]


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


def test_a_bad_question_is_refused(desk: Desk) -> None:
    path = f"/v1/jobs/{desk.launch().job_id}/metrics"

    for query in ("points=0", "points=10001", "points=x", "rank=-1", "key=", "stream=1"):
        assert desk.http.get(f"{path}?{query}", headers=desk.admin).status_code == 400, query
    assert desk.http.get(f"{path}?attempt=9", headers=desk.admin).status_code == 404


def test_a_place_in_the_stream_that_is_none_is_refused(desk: Desk) -> None:
    path = f"/v1/jobs/{desk.launch().job_id}/metrics/stream"

    for after in ("x", "AAAA", "eNozAgAAMwAzz", "é", "a" * 17_000):
        answer = desk.http.get(path, params={"after": after}, headers=desk.admin)
        assert answer.status_code == 400, after


def test_metrics_of_another_project_do_not_exist(desk: Desk) -> None:
    supervisor = desk.launch()
    stranger = desk.add_project("other")

    for path in ("metrics", "metrics?key=loss", "metrics/stream"):
        answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/{path}", headers=stranger)
        assert problem(answer, 404) == "not_found"
