"""What supervisors say of single ranks: stalls, and where time and memory go."""

from __future__ import annotations

import dataclasses

from scheduler.core.spec import Health
from tests.component.api_data.desk import TWO, Desk, ok

STALL = {
    "action": "restart",
    "silent_seconds": 600.5,
    "missing_ranks": [1],
    "waiting_ranks": [0],
    "ranks": [{"rank": 0, "step": 7, "phase": "communication"}, {"rank": 1, "step": 7}],
    "stacks": [
        {"ranks": [1], "stack": "main thread:\n  train.py:15 in load_batch"},
        {"ranks": [0], "stack": "main thread:\n  https://me:secret@host/x.py:1 in all_reduce"},
    ],
}


def test_a_stall_becomes_one_event_with_every_stack(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease("running")
    report = {"sequence": 0, "kind": "stalled", "message": "rank 1 is missing", "data": STALL}

    answers = [ok(supervisor.call("POST", "reports", json=report)) for _ in range(2)]

    events = desk.get(f"/v1/jobs/{supervisor.job_id}/events")["data"]
    (stalled,) = [each for each in events if each["type"] == "attempt.stalled"]
    assert answers == [{"accepted": True}] * 2
    assert (stalled["state"], stalled["message"]) == ("running", "rank 1 is missing")
    assert stalled["data"]["attempt_id"] == supervisor.attempt_id
    assert [each["ranks"] for each in stalled["data"]["stacks"]] == [[1], [0]]
    assert "secret" not in str(stalled)


def test_a_stall_is_retried_as_a_fault_of_machines_unless_the_job_says_otherwise(
    desk: Desk,
) -> None:
    endings = {}
    for on_stall in ("restart", "fail"):
        spec = dataclasses.replace(TWO, health=Health(on_stall=on_stall))
        supervisor = desk.launch(spec)
        supervisor.lease("running")
        ok(supervisor.exit("failed", "StallDetected", message="rank 1 is missing"))
        job = desk.get(f"/v1/jobs/{supervisor.job_id}")
        endings[on_stall] = (job["state"], job["reason"])

    assert endings == {"restart": ("pending", "RetryBackoff"), "fail": ("failed", "StallDetected")}


def test_what_ranks_do_with_their_time_is_explained_while_they_run(desk: Desk) -> None:
    supervisor = desk.launch()
    times = {"window": 10.0, "checkpoint": 0.0, "idle": 0.0}
    fast = {**times, "data_wait": 0.2, "compute": 5.8, "communication": 4.0}
    slow = {**times, "data_wait": 4.1, "compute": 5.7, "communication": 0.2}
    ranks = [
        {"rank": 0, "pid": 1, "state": "running", "step": 7, "phase": "compute", "times": fast},
        {"rank": 1, "pid": 2, "state": "running", "step": 7, "memory_peak_bytes": 2**30,
         "phase": "data_wait", "times": slow},
    ]  # fmt: skip
    supervisor.lease("running", ranks=ranks)

    said = desk.get(f"/v1/jobs/{supervisor.job_id}/explain")["ranks"]

    assert (said["slow_rank"], said["cause"]) == (1, "data_wait")
    assert said["message"].startswith("rank 1 is slow: it waits for data for 41 % of its time")
    assert [(one["rank"], one["node"], one["step"]) for one in said["ranks"]] == [
        (0, "n0", 7), (1, "n0", 7),
    ]  # fmt: skip
    assert said["ranks"][1]["shares"]["data_wait"] == 0.41
    assert said["ranks"][1]["memory_peak_bytes"] == 2**30


def test_ranks_that_measure_nothing_are_listed_without_a_word(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease("running")

    said = desk.get(f"/v1/jobs/{supervisor.job_id}/explain")["ranks"]

    assert (said["message"], said["slow_rank"]) == (None, None)
    assert [one["shares"] for one in said["ranks"]] == [None]
