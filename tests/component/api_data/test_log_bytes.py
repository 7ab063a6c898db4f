"""Log bytes are kept exactly once, and read back whole, line by line, from anywhere."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.logs.ingest import APPEND_BYTES_MAX
from scheduler.core.spec import JobSpec, RetrySpec
from tests.component.api_data.desk import ONE, TWO, Desk, Supervisor, ok, problem, texts

SLOW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RETRIED = JobSpec(
    recipe="image-classifier",
    workers=2,
    retry=RetrySpec(max_user_failures=9, backoff_seconds=0),
)
PIECES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from([b"one\n", b"two\nthree", b"\n", "€".encode(), b"\xe2", b"x" * 70_000]),
)


def read_pages(desk: Desk, job_id: str, limit: int, **query: Any) -> list[dict[str, Any]]:
    """Return all lines, a page at a time."""
    lines: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = desk.get(f"/v1/jobs/{job_id}/logs", limit=limit, **after, **query)
        lines += page["data"]
        if not page["has_more"]:
            return lines
        after = {"after": page["next_cursor"]}


def read_text(desk: Desk, job_id: str, **query: Any) -> bytes:
    """Return the plain text."""
    headers = {**desk.admin, "accept": "text/plain"}
    return desk.http.get(f"/v1/jobs/{job_id}/logs", params=query, headers=headers).content


def read_events(desk: Desk, job_id: str, **headers: str) -> list[dict[str, str]]:
    """Return the events of a stream that ends."""
    answer = desk.http.get(
        f"/v1/jobs/{job_id}/logs/stream",
        headers={**desk.admin, **{name.replace("_", "-"): text for name, text in headers.items()}},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if "event: " in block]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def test_an_append_answers_with_the_new_length(desk: Desk) -> None:
    supervisor = desk.launch()

    assert ok(supervisor.append(b"hello\n", 0)) == {"length": 6}
    assert ok(supervisor.append(b"world\n", 6)) == {"length": 12}
    assert ok(supervisor.append(b"", 12)) == {"length": 12}


def test_the_same_append_again_changes_nothing(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.append(b"hello\n", 0))

    assert ok(supervisor.append(b"hello\n", 0)) == {"length": 6}

    assert texts(desk.get(f"/v1/jobs/{supervisor.job_id}/logs")) == ["hello"]


def test_an_append_anywhere_but_at_the_end_is_refused_with_the_length(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.append(b"hello\n", 0))

    for offset in (1, 3, 7, 2**60):
        answer = supervisor.append(b"hell", offset)

        assert problem(answer, 409) == "offset_mismatch"
        assert answer.json()["length"] == 6


def test_an_append_of_a_rank_that_runs_elsewhere_is_refused(desk: Desk) -> None:
    supervisor = desk.launch(ONE)

    assert supervisor.append(b"x", 0, rank=1).status_code == 422


def test_an_append_that_is_too_large_is_refused_before_it_is_read(desk: Desk) -> None:
    supervisor = desk.launch()

    assert problem(supervisor.append(b"x" * (APPEND_BYTES_MAX + 1), 0), 413) == "too_large"
    ok(supervisor.append(b"x" * APPEND_BYTES_MAX, 0))


@SLOW
@given(
    pieces=st.lists(PIECES, min_size=1, max_size=8),
    faults=st.lists(st.sampled_from(["", "answer lost", "sent twice", "old one again"])),
)
def test_whatever_the_network_does_the_log_is_what_was_printed(
    desk: Desk, pieces: list[bytes], faults: list[str]
) -> None:
    supervisor = desk.launch(ONE, desk.join())
    printed = b"".join(pieces)
    sent: list[tuple[bytes, int]] = []
    position, turn = 0, 0
    sizes = [len(piece) for piece in pieces]
    while position < len(printed):
        piece = printed[position : position + sizes[turn % len(sizes)]]
        fault = faults[turn % len(faults)] if faults else ""
        turn += 1
        sent.append((piece, position))
        answer = supervisor.append(piece, position)
        if fault == "sent twice":
            answer = supervisor.append(piece, position)
        if fault == "old one again":
            supervisor.append(*sent[turn // 2])
        if fault == "answer lost" and turn < 50:
            continue
        length = answer.json()["length"]
        assert answer.status_code == 200 or answer.json()["code"] == "offset_mismatch"
        position = length

    ok(supervisor.exit())

    assert read_text(desk, supervisor.job_id).removesuffix(b"\n") == printed.removesuffix(b"\n")


def _print_something(desk: Desk, writes: list[tuple[int, str, bytes]], num_attempts: int) -> Any:
    """Let attempts print; return the job and what each log holds."""
    node = desk.join()
    job_id = desk.submit(RETRIED)
    logs: dict[tuple[int, int, str], bytes] = defaultdict(bytes)
    for attempt in range(1, num_attempts + 1):
        desk.schedule()
        supervisor = node.take(job_id)
        for index, (rank, stream, data) in enumerate(writes):
            if index % num_attempts == attempt - 1:
                key = (attempt, rank, stream)
                ok(supervisor.append(data, len(logs[key]), rank=rank, stream=stream))
                logs[key] += data
        last = attempt == num_attempts
        ok(supervisor.exit() if last else supervisor.exit("failed", "UserCodeError"))
    return job_id, logs


@SLOW
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["stdout", "stderr"]), PIECES), max_size=10
    ),
    num_attempts=st.integers(1, 2),
    limit=st.integers(1, 5),
)
def test_lines_are_the_same_in_every_page_size_and_from_every_line_on(
    desk: Desk, writes: list[tuple[int, str, bytes]], num_attempts: int, limit: int
) -> None:
    job_id, logs = _print_something(desk, writes, num_attempts)

    whole = read_pages(desk, job_id, 1000)

    assert read_pages(desk, job_id, limit) == whole
    ids = [line["id"] for line in whole]
    assert len(set(ids)) == len(ids)
    for index in range(len(whole)):
        page = desk.get(f"/v1/jobs/{job_id}/logs", after=ids[index])
        assert page["data"] == whole[index + 1 :]
    for (attempt, rank, stream), log in logs.items():
        one = read_text(desk, job_id, attempt=attempt, rank=rank, stream=stream)
        assert one.removesuffix(b"\n") == log.removesuffix(b"\n")


@SLOW
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["stdout", "stderr"]), PIECES), max_size=8
    ),
    tail=st.integers(1, 6),
)
def test_a_tail_is_the_end_of_the_whole(
    desk: Desk, writes: list[tuple[int, str, bytes]], tail: int
) -> None:
    job_id, _ = _print_something(desk, writes, 1)

    page = desk.get(f"/v1/jobs/{job_id}/logs", tail=tail)

    assert page["data"] == read_pages(desk, job_id, 1000)[-tail:]
    assert page["has_more"] is False


def print_lines(supervisor: Supervisor, text: str, rank: int = 0, offset: int = 0) -> int:
    data = text.encode()
    ok(supervisor.append(data, offset, rank=rank))
    return offset + len(data)


def test_lines_are_filtered_by_rank_stream_attempt_and_text(desk: Desk) -> None:
    supervisor = desk.launch()
    print_lines(supervisor, "loss 1\nacc 2\nloss 3\n")
    print_lines(supervisor, "loss 4\n", rank=1)
    ok(supervisor.append(b"warning\n", 0, stream="stderr"))
    path = f"/v1/jobs/{supervisor.job_id}/logs"

    assert texts(desk.get(path, rank=1)) == ["loss 4"]
    assert texts(desk.get(path, stream="stderr")) == ["warning"]
    assert texts(desk.get(path, grep="loss")) == ["loss 1", "loss 3", "loss 4"]
    assert texts(desk.get(path, grep="loss", tail=2)) == ["loss 3", "loss 4"]
    assert texts(desk.get(path, grep="loss", rank=0, limit=1)) == ["loss 1"]
    assert len(texts(desk.get(path, attempt=1))) == 5
    assert len(texts(desk.get(path, attempt=supervisor.attempt_id))) == 5
    assert desk.http.get(path, params={"attempt": 2}, headers=desk.admin).status_code == 404


def test_a_line_is_shown_once_it_is_whole_or_its_attempt_is_over(desk: Desk) -> None:
    supervisor = desk.launch()
    path = f"/v1/jobs/{supervisor.job_id}/logs"
    end = print_lines(supervisor, "done\nhalf")
    page = desk.get(path)
    assert texts(page) == ["done"]

    print_lines(supervisor, " whole\nrest", offset=end)
    assert texts(desk.get(path, after=page["next_cursor"])) == ["half whole"]

    ok(supervisor.exit())
    assert texts(desk.get(path)) == ["done", "half whole", "rest"]
    assert texts(desk.get(path, after=desk.get(path)["next_cursor"])) == []


def test_what_a_page_looks_through_is_bounded_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.logs.opened.LOOK_BYTES_MAX", 10_000)
    supervisor = desk.launch()
    end = 0
    for _ in range(5):
        end = print_lines(supervisor, "x" * 9000 + "\n", offset=end)
    print_lines(supervisor, "needle\n", offset=end)

    first = desk.get(f"/v1/jobs/{supervisor.job_id}/logs", grep="needle")

    assert (first["data"], first["has_more"]) == ([], True)
    assert texts({"data": read_pages(desk, supervisor.job_id, 10, grep="needle")}) == ["needle"]


def test_control_characters_and_broken_text_come_as_valid_json(desk: Desk) -> None:
    supervisor = desk.launch()
    ok(supervisor.append(b"\x1b[31mred\x00\x07\xff</script>\r\n", 0))

    page = desk.get(f"/v1/jobs/{supervisor.job_id}/logs")

    assert texts(page) == ["\x1b[31mred\x00\x07\ufffd</script>\r"]


def test_ndjson_has_one_line_of_json_per_line(desk: Desk) -> None:
    supervisor = desk.launch()
    print_lines(supervisor, "a\nb\n")
    headers = {**desk.admin, "accept": "application/x-ndjson"}

    answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/logs", headers=headers)

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["text"] for line in answer.text.splitlines()] == ["a", "b"]
    page = desk.get(f"/v1/jobs/{supervisor.job_id}/logs")
    assert [json.loads(line) for line in answer.text.splitlines()] == page["data"]


def test_a_stream_gives_every_line_and_then_ends(desk: Desk) -> None:
    supervisor = desk.launch()
    print_lines(supervisor, "a\nb\nc")
    ok(supervisor.exit())
    page = desk.get(f"/v1/jobs/{supervisor.job_id}/logs")

    events = read_events(desk, supervisor.job_id)

    assert [event["event"] for event in events] == ["log", "log", "log", "end"]
    assert [json.loads(event["data"]) for event in events[:-1]] == page["data"]
    assert [event["id"] for event in events[:-1]] == [line["id"] for line in page["data"]]


def test_a_stream_goes_on_exactly_behind_the_last_event(desk: Desk) -> None:
    supervisor = desk.launch(TWO)
    print_lines(supervisor, "a\nb\nc")
    print_lines(supervisor, "d\ne", rank=1)
    ok(supervisor.exit())
    events = read_events(desk, supervisor.job_id)

    for index, event in enumerate(events[:-1]):
        rest = read_events(desk, supervisor.job_id, last_event_id=event["id"])
        assert rest == events[index + 1 :]


def test_a_place_that_is_none_is_refused(desk: Desk) -> None:
    path = f"/v1/jobs/{desk.launch().job_id}/logs"

    for after in ("x", "1", "1-", "-1-1", "1-1-1", "9" * 30 + "-1", "1-1\n"):
        answer = desk.http.get(path, params={"after": after}, headers=desk.admin)
        assert answer.status_code == 400, after


def test_a_bad_question_is_refused(desk: Desk) -> None:
    path = f"/v1/jobs/{desk.launch().job_id}/logs"

    for query in (
        "limit=0",
        "limit=99999999",
        "tail=-1",
        "rank=-1",
        "rank=99999999999999999999",
        "stream=x",
        "grep=",
        "tail=1&after=1-1",
        "unknown=1",
    ):
        assert desk.http.get(f"{path}?{query}", headers=desk.admin).status_code == 400, query


def test_logs_of_another_project_do_not_exist(desk: Desk) -> None:
    supervisor = desk.launch()
    stranger = desk.add_project("other")

    for path in ("logs", "logs/stream"):
        answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/{path}", headers=stranger)
        assert problem(answer, 404) == "not_found"
