"""A node daemon as a real process, and the jobs the tests give it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.component.workers.worker_service_fake import ADMIN_KEY, FakeService
from workers.supervisor.layout import Handover, RunFolder

ROOT = Path(__file__).resolve().parents[3]
JOB_PYTHON = ROOT / ".venv-job" / "bin" / "python"

# What a rank without the SDK needs to speak to its supervisor.
TOOLS = """
import json, os, socket, sys, time
RUN = json.load(open(os.environ["TRAINMASTER_RUN"]))
RANK = int(os.environ["RANK"])

def log(step, **values):
    line = json.dumps({"step": step, "time": time.time(), "values": values}) + "\\n"
    path = os.path.join(RUN["spool_dir"], f"{RANK}.jsonl")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, line.encode())
    os.close(handle)

class Channel:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        folder = os.open(os.path.dirname(RUN["socket"]), os.O_PATH | os.O_DIRECTORY)
        self.socket.connect(f"/proc/self/fd/{folder}/{os.path.basename(RUN['socket'])}")
        os.close(folder)
        self.file = self.socket.makefile("r")
        self.say(op="hello", rank=RANK, pid=os.getpid(), protocol=1)
        assert self.hear()["op"] == "welcome"
    def say(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\\n")
    def hear(self):
        return json.loads(self.file.readline())

def checkpoint(channel, step, files, **metrics):
    path = os.path.join(RUN["checkpoints_dir"], f"tmp-{RANK}-{step}")
    for name, content in files.items():
        os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
        open(os.path.join(path, name), "wb").write(content)
    channel.say(op="commit", request=f"r{step}", path=path, step=step, metrics=metrics)
    return channel.hear()

def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.01)
"""


def bundle(train: str = "", **files: str) -> bytes:
    """Return a zip of train.py, tools.py and the files, whose names have `.` for `/`: `a.b`."""
    named = {name.replace(".", "/") + ".py": content for name, content in files.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"train.py": train, "tools.py": TOOLS, **named}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def assignment(
    service: FakeService, code: bytes | None, *, workers: int = 1, **changes: Any
) -> dict[str, Any]:
    """Return an assignment of a script `train.py` on one node."""
    ranks = list(range(workers))
    return {
        "attempt_id": "att_1",
        "job_id": "job_1",
        "job_name": "a job",
        "project": "default",
        "number": 1,
        "epoch": 1,
        "node_id": "node_1",
        "spec": {
            "config": {"lr": 0.1},
            "parallel": {"data": workers},
            "sync": {"mode": "allreduce"},
            "resources": {"cpus": 1, "gpus": 0},
            "checkpoint": {"every_steps": 10, "every_seconds": None},
        },
        "world_size": workers,
        "node_rank": 0,
        "num_nodes": 1,
        "ranks": [{"rank": rank, "local_rank": rank, "gpu_indices": []} for rank in ranks],
        "cluster": [{"node_rank": 0, "address": "127.0.0.1", "ranks": ranks}],
        "rendezvous": None,
        "command": {"kind": "script", "path": "train.py", "args": []},
        "code": None if code is None else service.add_file("code.zip", code),
        "inputs": [],
        "environment": {"python": None, "requirements": []},
        "env": {},
        "secrets": {},
        "resume": None,
        "timers": {
            "heartbeat_seconds": 1,
            "lease_seconds": 60,
            "fence_seconds": 50,
            "grace_seconds": 30,
        },
        **changes,
    }


class Node:
    """A daemon on a folder of its own."""

    def __init__(self, service: FakeService, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.job_python = Path(sys.executable)
        self.options: list[str] = []
        self.key: str | None = ADMIN_KEY
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the daemon and wait for its first heartbeat."""
        beats = len(self.service.beats)
        self.process = self.launch()
        self.service.wait_until(lambda: len(self.service.beats) > beats)

    def launch(self) -> subprocess.Popen[str]:
        arguments = [
            "--url", self.service.url, "--node-dir", str(self.folder), "--name", "n1",
            "--job-python", str(self.job_python), "--heartbeat", "1", *self.options,
        ]  # fmt: skip
        environment = {"PATH": os.environ["PATH"], "SERVICE_CANARY": "must not leak"}
        if self.key is not None:
            environment["TRAINMASTER_API_KEY"] = self.key
        with (self.folder.parent / "daemon.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "workers.node", *arguments],
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end; wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def list_fork_servers(self) -> list[int]:
        """Return the pids of the zygote and the preloaders, not of what they have forked."""
        return [
            pid for pid in self.list_processes() if name_of(pid) in ("tm-zygote", "tm-preloader")
        ]

    def kill_fork_servers(self) -> None:
        """End what would leave by itself in a while."""
        for pid in self.list_fork_servers():
            with contextlib.suppress(ProcessLookupError):
                kill(pid)

    def leave_handover(self, attempt_id: str, token: str) -> None:
        """Make a run folder as a daemon leaves it that dies before it starts the supervisor."""
        (library,) = self.folder.glob("supervisor-*.zip")
        folder = RunFolder(self.run_folder(attempt_id))
        folder.path.mkdir(parents=True)
        Handover(
            url=self.service.url, token=token, attempt_id=attempt_id, epoch=1, node_id="node_1",
            node_dir=self.folder, job_python=self.job_python, preloader=Path("/"), library=library,
            preloader_version="0", cgroup_root=None, heartbeat_s=1.0, fence_s=50.0, orphan_s=60.0,
        ).write(folder)  # fmt: skip

    def run_folder(self, attempt_id: str) -> Path:
        return self.folder / "runs" / attempt_id

    def supervisor_pid(self, attempt_id: str) -> int:
        """Return the pid of the attempt's supervisor once it has said it."""
        path = self.run_folder(attempt_id) / "supervisor.json"
        wait_until(path.exists)
        pid = json.loads(path.read_text())["pid"]
        assert isinstance(pid, int)
        return pid

    def list_processes(self) -> dict[int, str]:
        """Return what runs because of this node: pid → command line."""
        found = {}
        for path in Path("/proc").iterdir():
            if not path.name.isdigit() or int(path.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                said = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                if str(self.folder).encode() in said and state != "Z":
                    found[int(path.name)] = said.replace(b"\0", b" ")[:300].decode(
                        "utf-8", "replace"
                    )
        return found

    def is_quiet(self) -> bool:
        """Say whether no run folder is left."""
        runs = self.folder / "runs"
        return not runs.exists() or not any(runs.iterdir())


def wait_until(predicate: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Poll until the predicate holds."""
    deadline = time.monotonic() + limit_s
    while not predicate():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.01)


def name_of(pid: int) -> str:
    """Return the short name of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Say whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send the signal."""
    os.kill(pid, number)
