"""Following a job: what is shown, and how it ends."""

import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from tests.conformance.sdk.fake_service import FakeService, Fault
from trainmaster import Client
from trainmaster.cli.follow import follow_job

Run = Callable[..., Result]
END: tuple[str, str, Any] = ("", "end", {})


def script_job(service: FakeService, *ends: dict[str, Any]) -> str:
    """Add a job that runs, logs and measures, and ends as said."""
    job_id = service.add_job("starting", spec={"workers": 2})
    running = {"state": "running", "progress": {"step": 1, "total_steps": 2}}
    service.changes[job_id] = [running, *ends]
    lines = [
        (1, 0, "epoch 1"),
        (2, 1, "\x1b[31mred\x1b[0m"),
        (3, 0, "last line"),
    ]
    service.streams[f"/v1/jobs/{job_id}/logs/stream"] = [
        *((str(seq), "log", log_line(seq, rank, text)) for seq, rank, text in lines),
        END,
    ]
    points = [
        {"key": "train/loss", "rank": 0, "step": step, "time": 100.0 + step, "value": 1 / step}
        for step in (1, 2)
    ]
    service.streams[f"/v1/jobs/{job_id}/metrics/stream"] = [
        ("1", "metrics", {"points": points[1:]}),
        ("2", "metrics", {"points": points[:1]}),
        END,
    ]
    return job_id


def log_line(seq: int, rank: int, text: str) -> dict[str, Any]:
    return {
        "id": str(seq),
        "attempt_id": "att_1",
        "attempt": 1,
        "rank": rank,
        "stream": "stdout",
        "offset": 0,
        "text": text,
    }


@pytest.mark.parametrize(
    ("state", "exit_code"), [("succeeded", 0), ("failed", 1), ("cancelled", 2)]
)
def test_the_exit_code_is_the_jobs_result(
    run: Run, service: FakeService, state: str, exit_code: int
) -> None:
    job_id = script_job(service, {"state": state, "reason": "Because"})

    result = run("follow", job_id)

    assert result.exit_code == exit_code
    assert f"{job_id} {state} · Because" in result.stdout.splitlines()[-1]


def test_in_a_pipe_every_line_stands_alone(run: Run, service: FakeService) -> None:
    job_id = script_job(service, {"state": "succeeded"})

    lines = run("follow", job_id).stdout.splitlines()

    assert lines[0] == f"{job_id} starting"
    assert f"{job_id} running" in lines
    assert "[0] epoch 1" in lines
    assert "[1] \x1b[31mred\x1b[0m" in lines
    assert any("train/loss" in line and "step 2" in line for line in lines)


def test_with_json_every_line_is_a_document_and_the_last_is_the_end(
    run: Run, service: FakeService
) -> None:
    job_id = script_job(service, {"state": "failed"})

    result = run("follow", job_id, "--json")

    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert documents[0]["type"] == "job"
    assert documents[-1]["type"] == "end"
    assert documents[-1]["job"]["state"] == "failed"
    assert next(each["text"] for each in documents if each["type"] == "log") == "epoch 1"
    assert sum(len(each["points"]) for each in documents if each["type"] == "metrics") == 2


def test_submit_can_follow(run: Run, service: FakeService) -> None:
    service.streams["/v1/jobs/job_0001/logs/stream"] = [END]
    service.streams["/v1/jobs/job_0001/metrics/stream"] = [END]
    service.changes["job_0001"] = [{"state": "succeeded"}]

    result = run("submit", "--recipe", "image-classifier", "--follow")

    assert result.exit_code == 0
    assert "job_0001 succeeded" in result.stdout


def test_on_a_terminal_nothing_that_a_job_prints_is_obeyed(
    client: Client, service: FakeService
) -> None:
    job_id = script_job(service, {"state": "succeeded"})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)

    result = follow_job(client, job_id, console)

    assert result.job.state == "succeeded"
    assert result.first_point_at == 101.0
    assert "[0] epoch 1" in screen.getvalue()
    assert "\x1b[31mred" not in screen.getvalue()
    assert "train/loss" in screen.getvalue()
    assert "step 2/2" in screen.getvalue()


def test_a_view_outlives_a_service_that_restarts(client: Client, service: FakeService) -> None:
    job_id = script_job(service, {"state": "succeeded"})
    for path in (f"/v1/jobs/{job_id}/logs", f"/v1/jobs/{job_id}/metrics"):
        service.faults.append(Fault("GET", path, status=503, count=2))
        service.faults.append(Fault("GET", path, cut_after=150))
    screen = io.StringIO()

    result = follow_job(client, job_id, Console(file=screen))

    lines = screen.getvalue().splitlines()
    assert result.job.state == "succeeded"
    assert result.first_point_at == 101.0
    assert sorted(line for line in lines if line.startswith("[")) == [
        "[0] epoch 1",
        "[0] last line",
        "[1] \x1b[31mred\x1b[0m",
    ]


def test_a_view_goes_on_without_a_part_that_is_gone(client: Client, service: FakeService) -> None:
    job_id = script_job(service, {"state": "succeeded"})
    del service.streams[f"/v1/jobs/{job_id}/metrics/stream"]
    screen = io.StringIO()

    result = follow_job(client, job_id, Console(file=screen))

    assert result.job.state == "succeeded"
    assert result.first_point_at is None
    assert "part of the view is gone" in screen.getvalue()


def test_a_job_that_is_not_there_is_refused_at_once(run: Run) -> None:
    result = run("follow", "job_9")

    assert result.exit_code == 3
    assert "no such thing" in result.stderr


def test_an_interrupt_ends_the_view_and_not_the_job(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = script_job(service)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainmaster.cli.follow.follow_job", interrupted)
    result = run("follow", job_id)

    assert result.exit_code == 130
    assert "the job goes on" in result.stderr
    assert f"trainmaster cancel {job_id}" in result.stderr
    assert not service.requests("POST", f"/v1/jobs/{job_id}/cancel")


def test_no_feed_is_left_behind(client: Client, service: FakeService) -> None:
    job_id = script_job(service, {"state": "succeeded"})

    follow_job(client, job_id, Console(file=io.StringIO()))

    deadline = time.monotonic() + 5
    while any(thread.name.startswith("follow-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_logs_of_one_rank_are_printed_as_they_are(run: Run, service: FakeService) -> None:
    job_id = script_job(service)
    service.lists[f"/v1/jobs/{job_id}/logs"] = [log_line(1, 0, "one"), log_line(2, 0, "two")]

    result = run("logs", job_id, "--rank", "0", "--tail", "2", "--grep", "o")

    assert result.stdout == "one\ntwo\n"
    assert service.seen[0].query == {"rank": "0", "tail": "2", "grep": "o"}


def test_logs_of_several_ranks_say_whose_they_are(run: Run, service: FakeService) -> None:
    job_id = script_job(service)

    result = run("logs", job_id, "--follow")

    assert result.stdout.splitlines() == ["[0] epoch 1", "[1] \x1b[31mred\x1b[0m", "[0] last line"]


def test_followed_logs_go_on_after_their_tail(run: Run, service: FakeService) -> None:
    job_id = script_job(service)
    service.lists[f"/v1/jobs/{job_id}/logs"] = [log_line(2, 1, "red")]

    result = run("logs", job_id, "--follow", "--tail", "1", "--json")

    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["2", "3"]
