"""A service that is away, answers late or not at all, or has given the job to somebody else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.component.workers.node_harness import (
    Node,
    assignment,
    bundle,
    is_running,
    kill,
    wait_until,
)
from tests.component.workers.test_supervisor_failures import (
    assert_exactly_once,
    rank_pid,
    talk,
)
from tests.component.workers.worker_service_fake import FakeService

TIMERS = {
    "heartbeat_seconds": 0.5,
    "lease_seconds": 6,
    "fence_seconds": 3,
    "grace_seconds": 30,
}


def grows(ledger: Path) -> bool:
    size = ledger.stat().st_size
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if ledger.stat().st_size > size:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("how", ["answers 503", "does not listen"])
def test_while_the_service_is_away_ranks_go_on_and_nothing_is_lost(
    how: str, any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    attempt = talk(service, ledger)

    if how == "answers 503":
        service.is_away = True
    else:
        service.stop()
    renewals = len(attempt.leases)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert grows(ledger)
    assert len(attempt.leases) == renewals
    if how == "answers 503":
        service.is_away = False
    else:
        service.start()

    service.wait_until(lambda: len(attempt.leases) > renewals + 1)
    assert is_running(rank_pid(attempt))
    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=1)
    service.wait_for_exit("att_1")
    assert_exactly_once(attempt, ledger)


def test_answers_that_are_lost_double_nothing(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    script = """
from tools import *
channel = Channel()
ledger = open(sys.argv[1], "w")
print("pid", os.getpid(), flush=True)
for step in range(600):
    print("line", step, flush=True)
    log(step, loss=float(step))
    ledger.write(f"{step}\\n"); ledger.flush()
    if step % 200 == 0:
        assert checkpoint(channel, step, {"a": b"a" * 10, "b": b"b"})["op"] == "committed"
    time.sleep(0.002)
"""
    ledger = tmp_path / "ledger"
    lost: list[str] = []
    turn = iter(range(10**9))

    def lose(method: str, path: str) -> bool:
        """Lose every third answer, and the first of each kind."""
        kind = f"{method} {path.rpartition('/')[2]}"
        is_lost = kind not in lost or next(turn) % 3 == 0
        if is_lost and "heartbeat" not in kind:
            lost.append(kind)
            return True
        return False

    service.lose_answer = lose
    command = {"kind": "script", "path": "train.py", "args": [str(ledger)]}
    attempt = service.add_attempt(
        "att_1", assignment(service, bundle(train=script), command=command)
    )

    exit_record = service.wait_for_exit("att_1", limit_s=60)

    assert exit_record["outcome"] == "succeeded", attempt.text(0, "stderr")
    assert_exactly_once(attempt, ledger)
    assert [(one["step"], one["state"]) for one in attempt.checkpoints.values()] == [
        (0, "committed"), (200, "committed"), (400, "committed"),
    ]  # fmt: skip
    assert {"GET assignment", "POST lease", "PUT stdout", "POST metrics", "POST exit"} <= set(lost)
    wait_until(any_node.is_quiet)


def test_past_the_fence_everything_is_dead_before_the_lease_is_over(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    attempt = talk(service, ledger, timers=TIMERS)

    service.is_away = True
    renewed_at = attempt.leases[-1]["at"]

    wait_until(lambda: not is_running(rank_pid(attempt)), limit_s=6)
    assert time.monotonic() - renewed_at < TIMERS["lease_seconds"]
    service.is_away = False
    exit_record = service.wait_for_exit("att_1")
    assert (exit_record["outcome"], exit_record["reason"]) == ("lost", "LeaseLost")
    assert_exactly_once(attempt, ledger)


def test_a_supervisor_that_is_stopped_is_fenced_by_its_nursery(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger", timers=TIMERS)
    supervisor = node.supervisor_pid("att_1")

    kill(supervisor, 19)

    wait_until(lambda: not is_running(rank_pid(attempt)), limit_s=8)
    kill(supervisor, 18)
    assert service.wait_for_exit("att_1")["outcome"] == "lost"


def test_when_the_attempt_is_stale_everything_is_dropped(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger")
    supervisor = node.supervisor_pid("att_1")

    attempt.ended = True  # the service has given the job to somebody else

    wait_until(lambda: not is_running(rank_pid(attempt)), limit_s=5)
    wait_until(lambda: not is_running(supervisor), limit_s=5)
    wait_until(node.is_quiet)
    assert attempt.exit is None


def test_a_stale_supervisor_that_cannot_hear_is_killed(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger")
    supervisor = any_node.supervisor_pid("att_1")
    kill(supervisor, 19)

    attempt.ended = True

    wait_until(lambda: not is_running(supervisor), limit_s=25)
    wait_until(lambda: not is_running(rank_pid(attempt)), limit_s=5)
    wait_until(any_node.is_quiet)


def test_a_token_that_has_died_is_replaced_for_the_salvage(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    attempt = talk(service, ledger)
    kill(any_node.supervisor_pid("att_1"), 19)
    attempt.token = "tma-another"

    kill(any_node.supervisor_pid("att_1"))

    assert service.wait_for_exit("att_1")["reason"] == "SupervisorDied"
    assert_exactly_once(attempt, ledger)


def test_what_the_service_refuses_does_not_hold_up_the_rest(
    any_node: Node, service: FakeService
) -> None:
    script = """
from tools import *
for step in range(100):
    log(step, **{"loss": 1.0, **({"/bad": 1.0} if step == 50 else {})})
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    service.wait_for_exit("att_1")
    service.problems.clear()  # the refusals are what this is about

    steps = [step for step, _time, _value in attempt.points["0", "loss"]]
    assert steps == [step for step in range(100) if step != 50]
    assert attempt.high_water == {"0": 100}
