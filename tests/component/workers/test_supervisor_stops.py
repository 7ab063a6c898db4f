"""Stopping: what is told, in which order, and that it always comes to an end."""

from __future__ import annotations

import time
from pathlib import Path

from tests.component.workers.node_harness import Node, assignment, bundle, is_running, kill
from tests.component.workers.worker_service_fake import FakeService

POLITE = """
from tools import *
channel = Channel()
print("ready", flush=True)
message = channel.hear()
assert message == {"op": "stop", "reason": "PauseRequested", "grace_seconds": 20}, message
assert checkpoint(channel, 3, {"w": b"w"})["op"] == "committed"
print("saved", flush=True)
"""

# Ignores SIGTERM, and so does its grandchild in a session of its own.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()):
    time.sleep(0.01)
print("ready", flush=True)
while True:
    time.sleep(1000)
"""


def test_a_polite_rank_saves_and_ends_within_its_grace(
    any_node: Node, service: FakeService
) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + POLITE
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    service.want("att_1", action="stop", reason="PauseRequested", grace_seconds=20)

    exit_record = service.wait_for_exit("att_1", limit_s=10)
    assert exit_record["outcome"] == "stopped", attempt.text(0, "stderr")
    assert exit_record["ranks"][0]["class"] == "ok"
    assert [one["step"] for one in attempt.checkpoints.values()] == [3]
    assert "stopping" in {lease["phase"] for lease in attempt.leases} or exit_record


def test_a_stubborn_rank_and_all_its_offspring_are_killed_after_the_grace(
    node: Node, service: FakeService, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    command = {"kind": "script", "path": "train.py", "args": [str(hidden)]}
    attempt = service.add_attempt(
        "att_1", assignment(service, bundle(train=STUBBORN), command=command, workers=1)
    )
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=1)
    asked_at = time.monotonic()

    exit_record = service.wait_for_exit("att_1", limit_s=10)
    assert 1 <= time.monotonic() - asked_at < 5
    assert exit_record["outcome"] == "stopped"
    assert exit_record["ranks"][0] == {
        "rank": 0, "code": None, "signal": 9, "class": "stopped", "last_step": None,
    }  # fmt: skip
    assert not is_running(int(hidden.read_text()))


def test_a_stopped_process_is_killed_all_the_same(any_node: Node, service: FakeService) -> None:
    script = "import os; print(os.getpid(), flush=True); os.kill(os.getpid(), 19)"
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: attempt.text(0, "stdout"))

    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=0)

    service.wait_for_exit("att_1", limit_s=10)
    assert not is_running(int(attempt.text(0, "stdout")))


def test_a_second_wish_shortens_the_grace_of_the_first(
    any_node: Node, service: FakeService, tmp_path: Path
) -> None:
    command = {"kind": "script", "path": "train.py", "args": [str(tmp_path / "hidden")]}
    attempt = service.add_attempt(
        "att_1", assignment(service, bundle(train=STUBBORN), command=command)
    )
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    service.want("att_1", action="stop", reason="PauseRequested", grace_seconds=60)
    service.wait_until(lambda: any(one["phase"] == "stopping" for one in attempt.leases))
    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=0)

    assert service.wait_for_exit("att_1", limit_s=10)["outcome"] == "stopped"


def test_a_failure_before_the_stop_stays_a_failure(any_node: Node, service: FakeService) -> None:
    script = """
from tools import *
import signal
if RANK == 0:
    signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
    print("ready", flush=True)
    time.sleep(100)
wait_for_file(RUN["checkpoints_dir"] + "/../go")
raise ValueError("first")
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script), workers=2))
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    (any_node.run_folder("att_1") / "go").touch()
    service.wait_until(lambda: "asked" in attempt.text(0, "stdout"))
    service.want("att_1", action="stop", reason="PauseRequested", grace_seconds=20)

    exit_record = service.wait_for_exit("att_1", limit_s=10)
    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "UserCodeError")


def test_a_stop_while_code_is_staged_starts_no_rank(any_node: Node, service: FakeService) -> None:
    service.lose_answer = lambda method, path: "/files/" in path
    attempt = service.add_attempt("att_1", assignment(service, bundle(train="print('ran')")))
    service.wait_until(lambda: attempt.leases)

    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=30)

    assert service.wait_for_exit("att_1", limit_s=10)["outcome"] == "stopped"
    assert attempt.logs == {}


def test_a_wish_for_a_checkpoint_is_passed_on_once(any_node: Node, service: FakeService) -> None:
    script = """
from tools import *
channel = Channel()
print("ready", flush=True)
channel.socket.settimeout(2.5)
heard = []
try:
    while True:
        heard.append(channel.hear()["op"])
except TimeoutError:
    print(heard, flush=True)
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    service.want("att_1", action="checkpoint", serial=1)

    service.wait_for_exit("att_1")
    assert attempt.text(0, "stdout") == "ready\n['checkpoint']\n"


def test_a_supervisor_told_to_end_by_a_signal_ends_the_ranks_first(
    any_node: Node, service: FakeService
) -> None:
    script = "import time; print('ready', flush=True); time.sleep(100)"
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))

    kill(any_node.supervisor_pid("att_1"), 15)

    exit_record = service.wait_for_exit("att_1", limit_s=10)
    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "NodeFailure")
    assert exit_record["ranks"][0]["class"] == "stopped"
