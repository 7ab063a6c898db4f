"""Ranks, supervisors, daemons and nurseries that die at a bad moment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.component.workers.node_harness import (
    Node,
    assignment,
    bundle,
    is_running,
    kill,
    wait_until,
)
from tests.component.workers.worker_service_fake import Attempt, FakeService

# Talks without pause, and says in a file of its own what it has said.
TALKER = """
from tools import *
ledger = open(sys.argv[1], "w")
print("pid", os.getpid(), flush=True)
step = 0
while True:
    print("line", step, flush=True)
    log(step, loss=float(step))
    ledger.write(f"{step}\\n"); ledger.flush()
    step += 1
    time.sleep(0.002)
"""

# Leaves a grandchild that is in a session of its own, has no environment, and ignores SIGTERM.
HIDER = """
from tools import *
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execve(sys.executable, [sys.executable, "-c", '''
import os, time
open({path!r}, "w").write(str(os.getpid()))
time.sleep(1000)
'''.format(path=sys.argv[1])], {})
    os._exit(0)
wait_for_file(sys.argv[1])
while not open(sys.argv[1]).read():
    time.sleep(0.01)
print("hidden", flush=True)
"""


def talk(service: FakeService, ledger: Path, **changes: Any) -> Attempt:
    command = {"kind": "script", "path": "train.py", "args": [str(ledger)]}
    document = assignment(service, bundle(train=TALKER), command=command, **changes)
    attempt = service.add_attempt("att_1", document)
    service.wait_until(lambda: attempt.text(0, "stdout").count("\n") > 50)
    return attempt


def rank_pid(attempt: Attempt) -> int:
    return int(attempt.text(0, "stdout").split()[1])


def assert_exactly_once(attempt: Attempt, ledger: Path) -> None:
    """What the rank has said by its own account is at the service, once, in order.

    Killed between saying a thing and writing it down, it may have said one thing more.
    """
    known = len(ledger.read_text().split("\n")) - 1
    lines = attempt.text(0, "stdout").split("\n")[1:-1]
    assert lines == [f"line {step}" for step in range(len(lines))]
    assert known <= len(lines) <= known + 1
    points = [(step, value) for step, _time, value in attempt.points["0", "loss"]]
    assert points == [(step, float(step)) for step in range(len(points))]
    assert known <= len(points) <= known + 1


@pytest.mark.parametrize(
    ("script", "reason", "rank_class", "message"),
    [
        pytest.param(
            "import time\nif RANK == 1: raise ValueError('bad data')\ntime.sleep(100)",
            "UserCodeError", "user", "rank 1 exited with code 1: ValueError: bad data",
            id="an exception is the user's",
        ),
        pytest.param(
            "import signal, time\nif RANK == 1: os.kill(os.getpid(), signal.SIGSEGV)\n"
            "time.sleep(100)",
            "UserCodeError", "user", "rank 1 was killed by SIGSEGV", id="so is a crash",
        ),
        pytest.param(
            "import signal, time\nif RANK == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
            "time.sleep(100)",
            "RankKilled", "infra", "rank 1 was killed by SIGKILL, not sent by Trainmaster",
            id="SIGKILL from outside is not",
        ),
        pytest.param(
            "if RANK == 1: raise MemoryError()\nimport time\ntime.sleep(100)",
            "HostOutOfMemory", "user", "rank 1 exited with code 1: MemoryError",
            id="memory is named",
        ),
    ],
)  # fmt: skip
def test_the_first_failing_rank_gives_the_reason_and_takes_the_others_along(
    script: str, reason: str, rank_class: str, message: str, any_node: Node, service: FakeService
) -> None:
    code = bundle(train="from tools import *\n" + script)
    service.add_attempt("att_1", assignment(service, code, workers=2))

    exit_record = service.wait_for_exit("att_1")

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", reason)
    assert exit_record["message"].startswith(message)
    assert [rank["class"] for rank in exit_record["ranks"]] == ["stopped", rank_class]
    assert exit_record["ranks"][0]["signal"] == signal.SIGTERM


def test_what_a_rank_leaves_behind_dies_with_the_attempt(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    command = {"kind": "script", "path": "train.py", "args": [str(hidden)]}
    service.add_attempt("att_1", assignment(service, bundle(train=HIDER), command=command))

    exit_record = service.wait_for_exit("att_1")

    assert exit_record["outcome"] == "succeeded"
    assert not is_running(int(hidden.read_text()))


def test_a_supervisor_killed_in_mid_run_loses_nothing_it_was_told(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    attempt = talk(service, ledger)
    rank = rank_pid(attempt)

    kill(node.supervisor_pid("att_1"))

    exit_record = service.wait_for_exit("att_1")
    assert not is_running(rank)
    assert (exit_record["outcome"], exit_record["reason"]) == ("lost", "SupervisorDied")
    assert [rank["class"] for rank in exit_record["ranks"]] == ["infra"]
    assert_exactly_once(attempt, ledger)
    assert attempt.exit_count == 1
    wait_until(node.is_quiet)


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({}, id="forked from the preloader"),
        pytest.param({"PYTHONHASHSEED": "0"}, id="executed"),
    ],
)
def test_ranks_die_when_their_supervisor_is_killed(
    env: dict[str, str], node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger", env=env)
    rank = rank_pid(attempt)
    node.kill()  # nobody salvages

    kill(node.supervisor_pid("att_1"))

    wait_until(lambda: not is_running(rank), limit_s=2)


def test_a_checkpoint_that_was_answered_for_survives_the_supervisor(
    any_node: Node, service: FakeService
) -> None:
    script = """
from tools import *
channel = Channel()
for step in range(3):
    assert checkpoint(channel, step, {"w": b"%d" % step})["op"] == "committed"
print("committed", flush=True)
time.sleep(100)
"""
    service.lose_answer = lambda method, path: path.endswith("/commit")
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: "committed" in attempt.text(0, "stdout"))

    kill(any_node.supervisor_pid("att_1"))

    service.lose_answer = lambda method, path: False
    service.wait_for_exit("att_1")
    kept = [(one["step"], one["state"], one["received"]) for one in attempt.checkpoints.values()]
    assert kept == [(step, "committed", {"w": b"%d" % step}) for step in range(3)]


def test_the_nursery_killed_is_the_nodes_fault(node: Node, service: FakeService) -> None:
    code = bundle(train="import os, time; print(os.getppid(), flush=True); time.sleep(100)")
    attempt = service.add_attempt("att_1", assignment(service, code))
    service.wait_until(lambda: attempt.text(0, "stdout"))

    kill(int(attempt.text(0, "stdout")))

    exit_record = service.wait_for_exit("att_1")
    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "PreloaderDied")


def test_a_daemon_that_is_killed_disturbs_nobody_and_its_successor_adopts(
    idle_node: Node, service: FakeService, tmp_path: Path
) -> None:
    idle_node.start()
    attempt = talk(service, tmp_path / "ledger")
    supervisor = idle_node.supervisor_pid("att_1")

    idle_node.kill()
    idle_node.start()

    service.wait_until(
        lambda: service.beats[-1]["supervisors"] == [{"attempt_id": "att_1", "epoch": 1}]
    )
    assert is_running(supervisor)
    assert idle_node.supervisor_pid("att_1") == supervisor
    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=1)
    assert service.wait_for_exit("att_1")["outcome"] == "stopped"
    assert_exactly_once(attempt, tmp_path / "ledger")


def test_a_daemon_finds_the_supervisor_dead_when_it_comes_back(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger")
    node.kill()
    kill(node.supervisor_pid("att_1"))

    node.start()

    assert service.wait_for_exit("att_1")["reason"] == "SupervisorDied"
    assert_exactly_once(attempt, tmp_path / "ledger")


def test_a_reboot_is_a_death_even_if_the_number_lives_again(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    attempt = talk(service, tmp_path / "ledger")
    any_node.kill()
    kill(any_node.supervisor_pid("att_1"))
    identity = any_node.run_folder("att_1") / "supervisor.json"
    ticks = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
    identity.write_text(
        json.dumps({"pid": os.getpid(), "start_ticks": ticks, "boot_id": "an earlier one"})
    )

    any_node.start()

    assert service.wait_for_exit("att_1")["reason"] == "SupervisorDied"
    assert_exactly_once(attempt, tmp_path / "ledger")


def test_an_exit_that_was_written_but_not_reported_is_reported(
    any_node: Node, service: FakeService
) -> None:
    code = bundle(train="import time; time.sleep(0.5)")
    attempt = service.add_attempt("att_1", assignment(service, code))
    service.wait_until(lambda: attempt.leases)
    service.is_away = True
    wait_until((any_node.run_folder("att_1") / "exit.json").exists)

    kill(any_node.supervisor_pid("att_1"))
    service.is_away = False

    exit_record = service.wait_for_exit("att_1")
    assert exit_record["outcome"] == "succeeded", "the rank's own end, not the supervisor's"


@pytest.mark.parametrize("has_handover", [False, True])
def test_a_daemon_that_died_before_it_started_a_supervisor_starts_it(
    has_handover: bool, any_node: Node, service: FakeService
) -> None:
    any_node.kill()
    attempt = service.add_attempt("att_1", assignment(service, bundle(train="print('ran')")))
    if has_handover:
        any_node.leave_handover("att_1", attempt.token)
    else:
        any_node.run_folder("att_1").mkdir(parents=True)

    any_node.start()

    assert service.wait_for_exit("att_1")["outcome"] == "succeeded"
    assert attempt.text(0, "stdout") == "ran\n"


def test_fork_servers_that_die_are_replaced(any_node: Node, service: FakeService) -> None:
    code = bundle(train="print('ran')")
    service.add_attempt("att_1", assignment(service, code))
    service.wait_for_exit("att_1")
    any_node.kill_fork_servers()

    attempt = service.add_attempt("att_2", assignment(service, code))

    assert service.wait_for_exit("att_2")["outcome"] == "succeeded"
    assert attempt.text(0, "stdout") == "ran\n"


def test_without_any_fork_server_everything_is_executed(
    idle_node: Node, service: FakeService, tmp_path: Path
) -> None:
    idle_node.job_python = tmp_path / "python"
    idle_node.job_python.write_text(
        f'#!/bin/sh\ncase "$1" in *preloader.py) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    idle_node.job_python.chmod(0o755)
    idle_node.start()
    attempt = service.add_attempt("att_1", assignment(service, bundle(train="print('ran')")))

    assert service.wait_for_exit("att_1")["outcome"] == "succeeded"
    assert attempt.text(0, "stdout") == "ran\n"


def list_kill_moments() -> list[Any]:
    def has(kind: str) -> Callable[[FakeService], bool]:
        return lambda service: service.count_calls(kind) > 0

    return [
        pytest.param(has("GET .*/assignment"), id="the assignment is fetched"),
        pytest.param(has("GET .*/files/"), id="the code is fetched"),
        pytest.param(has("POST .*/lease"), id="the first lease is renewed"),
        pytest.param(has("PUT .*/logs/"), id="the first bytes are appended"),
        pytest.param(has("POST .*/metrics"), id="the first points are stored"),
    ]


@pytest.mark.parametrize("moment", list_kill_moments())
def test_killed_at_any_moment_the_attempt_ends_once_with_all_it_said(
    moment: Callable[[FakeService], bool], any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    killed: list[int] = []

    def kill_now(_method: str, _path: str) -> bool:
        """Kill the supervisor when the call has been carried out and before it is answered."""
        if not killed and moment(service):
            killed.append(any_node.supervisor_pid("att_1"))
            kill(killed[0])
            return True
        return False

    service.lose_answer = kill_now
    command = {"kind": "script", "path": "train.py", "args": [str(ledger)]}
    document = assignment(service, bundle(train=TALKER), command=command)

    attempt = service.add_attempt("att_1", document)

    exit_record = service.wait_for_exit("att_1")
    assert killed
    assert (exit_record["outcome"], exit_record["reason"]) == ("lost", "SupervisorDied")
    if ledger.exists() and ledger.read_text():
        assert_exactly_once(attempt, ledger)
    assert attempt.exit_count == 1


DIVERGING = """
import time
from trainmaster.run import current_run

run = current_run()
for step in range(1, 100):
    if run.rank == 0 and step == 3:
        folder = run.checkpoint_dir()
        (folder / "weights").write_text("good")
        run.commit_checkpoint(folder, step)
    run.log(step, loss=float("nan") if (run.rank, step) == (1, 5) else 0.5)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("on_nan", ["fail", "ignore"])
def test_a_loss_that_is_nan_ends_the_attempt_and_names_the_checkpoint_before(
    on_nan: str, any_node: Node, service: FakeService
) -> None:
    code = bundle(train=DIVERGING.replace("100", "8" if on_nan == "ignore" else "100"))
    document = assignment(service, code, workers=2)
    document["spec"]["health"] = {"stall_seconds": 60, "on_stall": "restart", "on_nan": on_nan}
    service.add_attempt("att_1", document)

    record = service.wait_for_exit("att_1")

    if on_nan == "ignore":
        assert record["outcome"] == "succeeded"
        return
    assert (record["outcome"], record["reason"]) == ("failed", "NonFiniteLoss")
    assert record["message"].startswith("rank 1: loss is nan at step 5. Use a lower")
    assert record["message"].endswith("The newest checkpoint, of step 3, is from before it.")


def test_memory_that_runs_out_is_told_with_what_the_rank_had_held(
    any_node: Node, service: FakeService
) -> None:
    code = bundle(train="import time\nheld = bytes(2**26)\ntime.sleep(4)\nbytes(2**62)")
    service.add_attempt("att_1", assignment(service, code))

    record = service.wait_for_exit("att_1")

    assert record["reason"] == "HostOutOfMemory"
    assert "MemoryError (it had held 0." in record["message"]
    assert "resources.memory_gib" in record["message"]
