"""A rank and its supervisor, with a supervisor that the test plays."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from trainmaster._link import Link
from trainmaster._wishes import Wishes
from trainmaster.run import CheckpointNotCommitted, Run, RunError

LIMIT_S = 20.0


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    """A supervisor whose socket lies deeper than an address could say."""
    playing = FakeSupervisor(tmp_path / ("deep" * 20) / ("er" * 30))
    yield playing
    playing.close()


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def make_run(supervisor: FakeSupervisor, rank: int = 0) -> Run:
    """Return the run of a rank of that supervisor."""
    return Run(supervisor.describe_run(), {"RANK": str(rank), "WORLD_SIZE": "2"})


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.005)


def test_a_rank_that_only_logs_never_connects(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)

    run.log(1, loss=0.5)

    assert (supervisor.folder / "spool" / "0.jsonl").is_file()
    assert supervisor.heard == []


def test_the_first_question_says_who_we_are(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor, rank=1)

    assert not run.should_stop()

    until(lambda: supervisor.heard)
    assert supervisor.heard == [{"op": "hello", "rank": 1, "pid": os.getpid(), "protocol": 1}]


def test_a_stop_arrives_with_its_reason(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    run.should_stop()
    until(lambda: supervisor.heard)

    supervisor.say({"op": "stop", "reason": "PauseRequested", "grace_seconds": 30})

    until(run.should_stop)
    assert run.stop_reason == "PauseRequested"


def test_a_wish_for_a_checkpoint_is_heard_once(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    run.should_stop()
    until(lambda: supervisor.heard)

    supervisor.say({"op": "checkpoint"})

    until(run.checkpoint_requested)
    assert not run.checkpoint_requested()


def test_what_a_newer_supervisor_says_is_ignored(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    run.should_stop()
    until(lambda: supervisor.heard)

    supervisor.say({"op": "sing"})
    supervisor.say({"op": "stop", "reason": "CancelRequested"})

    until(run.should_stop)


def test_a_commit_returns_when_the_supervisor_has_it(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    folder = run.checkpoint_dir()
    (folder / "model.bin").write_text("weights")

    checkpoint = run.commit_checkpoint(folder, 100, accuracy=0.9, loss=float("nan"))

    said = supervisor.heard[-1]
    assert (said["path"], said["step"]) == (str(folder), 100)
    assert said["metrics"] == {"accuracy": 0.9, "loss": "NaN"}
    assert run.latest_checkpoint() is checkpoint
    assert (checkpoint.path / "model.bin").read_text() == "weights"


def test_a_refused_commit_says_why(supervisor: FakeSupervisor) -> None:
    supervisor.answer = lambda message: {
        "op": "refused",
        "request": message["request"],
        "message": "the disk is full",
    }
    run = make_run(supervisor)
    folder = run.checkpoint_dir()
    (folder / "model.bin").write_text("weights")

    with pytest.raises(CheckpointNotCommitted, match="the disk is full"):
        run.commit_checkpoint(folder, 1)

    assert run.latest_checkpoint() is None


def test_a_commit_survives_a_lost_connection(supervisor: FakeSupervisor) -> None:
    def hang_up_once(message: dict[str, Any]) -> dict[str, Any] | None:
        supervisor.answer = answer
        supervisor.hang_up()
        return None

    answer, supervisor.answer = supervisor.answer, hang_up_once
    run = make_run(supervisor)
    folder = run.checkpoint_dir()
    (folder / "model.bin").write_text("weights")

    run.commit_checkpoint(folder, 1)

    assert supervisor.ops() == ["hello", "commit", "hello", "commit"]


def test_two_threads_get_each_their_own_answer(supervisor: FakeSupervisor) -> None:
    supervisor.answer = lambda message: {**message, "op": "committed"}
    link = Link(str(supervisor.folder / "s.sock"), 0, Wishes())
    got: dict[int, Path] = {}

    def commit(number: int) -> None:
        path = Path(f"/{number}")
        got[number] = link.commit(path, 1, {}, answer_s=LIMIT_S, connect_s=LIMIT_S)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert got == {number: Path(f"/{number}") for number in range(8)}


@pytest.mark.parametrize("is_there", [False, True], ids=["nobody listens", "nobody answers"])
def test_a_commit_that_nobody_takes_ends_with_an_error(
    supervisor: FakeSupervisor, is_there: bool
) -> None:
    supervisor.answer = lambda message: None
    if not is_there:
        supervisor.close()
    link = Link(str(supervisor.folder / "s.sock"), 0, Wishes())

    with pytest.raises(CheckpointNotCommitted, match="files are still in /folder"):
        link.commit(Path("/folder"), 1, {}, answer_s=0.4, connect_s=0.2)


def test_a_run_goes_on_without_its_supervisor(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    run.should_stop()
    until(lambda: supervisor.connections)
    supervisor.close()

    for step in range(100):
        run.log(step, loss=1.0)
        run.progress(step, 100)
        assert not run.should_stop()

    lines = (supervisor.folder / "spool" / "0.jsonl").read_text().splitlines()
    assert len(lines) == 100


def test_progress_is_said_rarely_and_at_the_end(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)

    for step in range(1, 10_001):
        run.progress(step, 10_000)

    until(lambda: supervisor.heard and supervisor.heard[-1].get("step") == 10_000)
    told = supervisor.of_kind("progress")
    assert len(told) <= 10  # at four a second, even on a machine that needs two seconds for this
    assert told[0]["steps_per_second"] is None
    assert told[-1]["steps_per_second"] > 0


def test_only_rank_0_tells_progress(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor, rank=1)

    run.progress(10, 10)
    run.should_stop()

    until(lambda: supervisor.heard)
    assert supervisor.ops() == ["hello"]


def test_a_forked_child_leaves_the_connection_alone(supervisor: FakeSupervisor) -> None:
    run = make_run(supervisor)
    run.should_stop()
    until(lambda: supervisor.heard)

    child = os.fork()
    if child == 0:  # pragma: no cover  another process
        code = 1
        try:
            with contextlib.suppress(RunError):
                folder = run.checkpoint_dir()
                (folder / "x").write_text("x")
                run.commit_checkpoint(folder, 1)
                os._exit(2)
            is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            run.progress(1, 1)
            code = 0 if is_default and not run.should_stop() else 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    supervisor.say({"op": "stop", "reason": "PauseRequested"})
    until(run.should_stop)  # the child's end has not closed the parent's line
    assert supervisor.ops() == ["hello"]


SCRIPT = """
import os, signal, sys, time
from trainmaster.run import current_run
if sys.argv[1] == "theirs":
    signal.signal(signal.SIGTERM, lambda *_: print("their handler", flush=True))
run = current_run()
print("ready", flush=True)
while not run.should_stop():
    time.sleep(0.01)
print(run.stop_reason, flush=True)
time.sleep(60)
"""


def start_script(folder: Path, argument: str) -> subprocess.Popen[str]:
    """Start a script that waits for its stop, off the service."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, argument],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_off_the_service_the_first_sigterm_asks_and_the_second_ends(tmp_path: Path) -> None:
    with start_script(tmp_path, "ours") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "Terminated\n"
        process.send_signal(signal.SIGTERM)

        assert process.wait(LIMIT_S) == -signal.SIGTERM


def test_a_handler_that_the_script_has_set_stays(tmp_path: Path) -> None:
    with start_script(tmp_path, "theirs") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "their handler\n"
        process.kill()
