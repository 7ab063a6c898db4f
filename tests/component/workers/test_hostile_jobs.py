"""Jobs that damage what holds them: they end soon and truly, and nobody else notices."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.workers.node_harness import (
    ROOT,
    Node,
    assignment,
    bundle,
    is_running,
    wait_until,
)
from tests.component.workers.worker_service_fake import ADMIN_KEY, FakeService, Problem

PRELUDE = "import os, pathlib, shutil, time\nrun = pathlib.Path.cwd().parent\n"
REMOVE_ALL = PRELUDE + "shutil.rmtree(run, ignore_errors=True)\ntime.sleep(100)"


def test_a_job_that_removes_its_run_folder_ends_at_once_and_others_start(
    node: Node, service: FakeService
) -> None:
    service.add_attempt("att_1", assignment(service, bundle(train=REMOVE_ALL)))
    supervisor = node.supervisor_pid("att_1")
    ended = service.wait_until(lambda: service.ended, limit_s=10)

    service.add_attempt("att_2", assignment(service, bundle(train="print('ran')")))

    assert service.wait_for_exit("att_2", limit_s=10)["outcome"] == "succeeded"
    assert [(one["attempt_id"], one["reason"]) for one in ended] == [("att_1", "SupervisorDied")]
    assert "the run folder was removed" in ended[0]["message"]
    wait_until(lambda: not is_running(supervisor))
    wait_until(node.is_quiet)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("shutil.rmtree(run / 'logs'); os.mkfifo(run / 'logs')", id="logs a pipe"),
        pytest.param("shutil.rmtree(run / 'spool'); os.mkfifo(run / 'spool')", id="spool a pipe"),
        pytest.param(
            "os.unlink(run / 'logs/0.stderr'); os.mkfifo(run / 'logs/0.stderr')",
            id="a rank's output a pipe",
        ),
        pytest.param(
            "os.unlink(run / 'logs/0.stderr')\nos.symlink('/proc/version', run / 'logs/0.stderr')",
            id="a rank's output a link",
        ),
        pytest.param(
            "[os.unlink(run / name) for name in ('supervisor.json', 'supervisor.lock')]\n"
            "[os.mkfifo(run / name) for name in ('exit.json', 'supervisor.json')]\n"
            "shutil.rmtree(run / 'logs')",
            id="pipes in place of the supervisor's own files",
        ),
    ],
)
def test_a_job_that_damages_its_run_folder_fails_and_says_why(
    damage: str, any_node: Node, service: FakeService
) -> None:
    code = bundle(train=f"{PRELUDE}{damage}\ntime.sleep(0.3)")
    attempt = service.add_attempt("att_1", assignment(service, code))

    exit_record = service.wait_for_exit("att_1", limit_s=15)

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "SupervisorDied")
    assert "a job must leave the folder above its own alone" in exit_record["message"]
    assert "Linux" not in attempt.text(0, "stderr")
    wait_until(any_node.is_quiet)


def test_a_checkpoint_that_the_service_refuses_fails_the_job_and_is_named(
    any_node: Node, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        errors = [{"pointer": "/files/0/path", "code": "bad_path", "message": "not this one"}]
        raise Problem(422, "invalid", errors=errors)

    monkeypatch.setattr(service, "_declare", refuse)
    script = (
        "from tools import *\n"
        'assert checkpoint(Channel(), 5, {"w": b"1"})["op"] == "committed"\n'
        'print("done")'
    )
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    exit_record = service.wait_for_exit("att_1")
    service.problems.clear()  # the refusal is what this is about

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "UserCodeError")
    assert "the service refused checkpoint ready-000000000005-" in exit_record["message"]
    assert "/files/0/path: not this one" in attempt.text(0, "stderr")
    assert attempt.text(0, "stdout") == "done\n"
    wait_until(any_node.is_quiet)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no disk can be mounted here: run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def test_a_full_disk_is_named_and_others_start_when_there_is_room(
    service: FakeService, small_disk: Path, idle_node: Node
) -> None:
    idle_node.folder = small_disk
    idle_node.options = ["--no-preload"]
    idle_node.start()
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    attempt = service.add_attempt("att_1", assignment(service, bundle(train="print('ran')")))
    ended = service.wait_until(
        lambda: service.ended or [one for one in (attempt.exit,) if one], limit_s=15
    )
    ballast.unlink()

    service.add_attempt("att_2", assignment(service, bundle(train="print('ran')")))

    assert service.wait_for_exit("att_2", limit_s=15)["outcome"] == "succeeded"
    assert ended[0]["reason"] == "StorageUnavailable"
    assert f"disk is full below {small_disk}: free space" in ended[0]["message"]


def test_a_bundle_that_fills_the_disk_ends_the_attempt_with_the_reason(
    service: FakeService, small_disk: Path, idle_node: Node
) -> None:
    idle_node.folder = small_disk
    idle_node.options = ["--no-preload"]
    idle_node.start()
    code = bundle(train="", data="x" * 3_900_000)

    service.add_attempt("att_1", assignment(service, code))

    exit_record = service.wait_for_exit("att_1", limit_s=15)
    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "StorageUnavailable")
    assert "disk is full below" in exit_record["message"]
    wait_until(idle_node.is_quiet)


def test_a_rank_that_fills_the_disk_has_its_own_end_reported(
    service: FakeService, small_disk: Path, idle_node: Node
) -> None:
    idle_node.folder = small_disk
    idle_node.options = ["--no-preload"]
    idle_node.start()
    script = """
import os, sys
print("filling", flush=True)
with open(os.environ["TMPDIR"] + "/ballast", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        os._exit(7)
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    exit_record = service.wait_for_exit("att_1", limit_s=15)

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", "UserCodeError")
    assert exit_record["ranks"][0]["code"] == 7
    assert attempt.text(0, "stdout") == "filling\n"
    assert attempt.exit_count == 1
    wait_until(idle_node.is_quiet)


def test_an_embedded_daemon_leaves_when_its_service_never_comes_back(
    service: FakeService, idle_node: Node
) -> None:
    script = f"""
import sys
from pathlib import Path
from workers.node.config import NodeConfig
from workers.node.daemon import run_daemon
sys.exit(run_daemon(NodeConfig(
    url={service.url!r}, node_dir=Path({str(idle_node.folder)!r}), name="n1",
    job_python=Path(sys.executable), admin_key={ADMIN_KEY!r}, heartbeat_s=0.2,
    preloads_default=False, is_embedded=True, forsaken_s=1.0,
)))
"""
    daemon = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    service.wait_until(lambda: len(service.beats) > 5)
    assert daemon.poll() is None

    service.stop()

    assert daemon.wait(15) == 0
    wait_until(lambda: not idle_node.list_fork_servers(), limit_s=5)
