"""Real services for tests: started on free loopback ports, killed and started again by pid."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from trainmaster import Client

ROOT = Path(__file__).resolve().parent.parent
JOB_PYTHON = ROOT / ".venv-job" / "bin" / "python"
SCRIPTS = ROOT / "tests" / "e2e" / "scripts"

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], *, within_s: float = 30.0) -> T:
    """Return the first truthy answer of `probe`, or fail with what was waited for."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {what}")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON file's object, None while it is not there or not whole."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """An embedded service in a folder of its own, with short timers.

    Args:
        folder: becomes the data folder.
        settings: further TRAINMASTER_ settings, without the prefix.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kill_at: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "HEARTBEAT_SECONDS": 1,
            "LEASE_SECONDS": 6,
            "FENCE_SECONDS": 4,
            "POLL_SECONDS": 1,
            "LEADER_SECONDS": 2,
            "NODE_CPUS": 8,
            **settings,
        }

    def start(self, *, kill_at: str | None = None) -> None:
        """Start it, and wait until it and its node are ready.

        Args:
            kill_at: `module:function:before|after` where the service kills itself with SIGKILL,
                the first time it comes there; see scripts/faulty.py.
        """
        self.folder.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TRAINMASTER_DATA_DIR": str(self.folder),
            "TRAINMASTER_BIND": f"127.0.0.1:{self.port}",
            "TRAINMASTER_JOB_PYTHON": str(JOB_PYTHON),
            "TRAINMASTER_LOG_FORMAT": "json",
            **{f"TRAINMASTER_{name}": str(value) for name, value in self._settings.items()},
        }
        command = [sys.executable, "-m", "api", "all"]
        if kill_at is not None:
            command = [sys.executable, str(SCRIPTS / "faulty.py"), kill_at, "all"]
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for("the service and its node to be ready", self._is_ready, within_s=60)

    @property
    def pid(self) -> int:
        """The service's process."""
        assert self._process is not None
        return self._process.pid

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the service ended:\n{self.log_tail()}")
        try:
            with self.client() as client:
                nodes = list(client.nodes.list()) if client.is_ready() else []
        except Exception:  # noqa: BLE001  whatever it is, it is not ready
            return False
        return any(node.state == "ready" for node in nodes)

    def client(self, **options: Any) -> Client:
        """Return a client with the admin key."""
        key = (self.folder / "admin.key").read_text().strip()
        return Client(self.url, key, **{"retry_seconds": 60, **options})

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        assert self._process is not None
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and everything that it left on this machine."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Return every process on this machine that belongs to this service's folder."""
        mark = str(self.folder).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if mark in words and b"pytest" not in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def daemon_pid(self) -> int:
        """Return the node daemon's process."""
        (pid,) = [
            pid for pid in self.pids() if b"\0node\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return pid

    def runs(self) -> list[Path]:
        """Return the run folders on the node."""
        folder = self.folder / "node" / "runs"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of the service's own log."""
        path = self.folder / "service.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running_service(folder: Path, **settings: object) -> Iterator[Service]:
    """Yield a started service, and leave nothing of it behind."""
    service = Service(folder, **settings)
    try:
        service.start()
        yield service
    finally:
        service.stop()


def make_bundle(folder: Path, *scripts: str) -> Path:
    """Return a code folder with copies of scripts/NAME."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in scripts:
        shutil.copy(SCRIPTS / name, folder / name)
    return folder


class Ledger:
    """What a trainer wrote itself, outside the product: the truth that claims are held against."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return all entries, oldest first; a torn last line is nobody's claim."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().split("\n")[:-1]
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [entry for entry in found if kind is None or entry["kind"] == kind]

    def steps(self) -> list[int]:
        """Return the steps in the order in which they were done."""
        return [entry["step"] for entry in self.entries("step")]

    def overlaps(self) -> list[tuple[int, int]]:
        """Return pairs of attempts that were seen at work at the same time."""
        spans: dict[int, tuple[float, float]] = {}
        for entry in self.entries():
            first, _ = spans.get(entry["attempt"], (entry["at"], entry["at"]))
            spans[entry["attempt"]] = (first, entry["at"])
        ordered = sorted((span, attempt) for attempt, span in spans.items())
        return [
            (one, other)
            for (span, one), (next_span, other) in itertools.pairwise(ordered)
            if next_span[0] < span[1]
        ]
