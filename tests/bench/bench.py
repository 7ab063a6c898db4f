"""What every benchmark works with: a folder, a size, services to measure, a place to talk."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import machine_busy_s
from tests.services import JOB_PYTHON, Service, running_service
from trainmaster import Client
from trainmaster.documents import Job

SCRIPTS = Path(__file__).resolve().parent / "scripts"
JOB_BIN = JOB_PYTHON.parent

# Two ranks want two CPUs; on a smaller machine they share one, under the baseline as well.
_NODE_CPUS = max(2, os.cpu_count() or 1)

# The defaults of the service: tests run with shorter ones, which would cost time here.
_DEFAULT_TIMERS = {
    "HEARTBEAT_SECONDS": 5,
    "LEASE_SECONDS": 60,
    "FENCE_SECONDS": 50,
    "POLL_SECONDS": 4,
    "LEADER_SECONDS": 10,
    "NODE_CPUS": _NODE_CPUS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the benchmarks.

    Attributes:
        folder: on a real disk, since several figures are about what is durable.
        is_quick: fewer repetitions, to see that all works; nothing to quote.
    """

    folder: Path
    is_quick: bool

    def count(self, full: int, quick: int) -> int:
        """Return how often to repeat."""
        return quick if self.is_quick else full

    def say(self, text: str) -> None:
        """Tell whoever waits; the results alone go to standard output."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def make_folder(self, name: str) -> Path:
        """Return a new empty folder."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def service(self, name: str, **settings: object) -> Iterator[Service]:
        """Yield an embedded service with the default timers, and the CPUs of this machine."""
        with running_service(self.folder / name, **{**_DEFAULT_TIMERS, **settings}) as service:
            yield service


def finish(client: Client, job: Job, *, within_s: float = 120.0) -> Job:
    """Return the job once it has succeeded; anything else ends the benchmark with its log."""
    return client.jobs.wait(job, timeout_seconds=within_s)


def upload_script(client: Client, name: str) -> str:
    """Store scripts/NAME as a bundle and return the file's id."""
    return client.files.upload(SCRIPTS / name, purpose="code").id


def wait_for_quiet(limit_s: float = 5.0, *, busy_max: float = 0.25) -> None:
    """Return when the machine has little to do, or when `limit_s` are over.

    What one measurement leaves behind, such as the end of its processes, is not charged to the
    next one.
    """
    deadline = time.monotonic() + limit_s
    busy_s, seen_at = machine_busy_s(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before_s, before_at = busy_s, seen_at
        busy_s, seen_at = machine_busy_s(), time.monotonic()
        if busy_s - before_s <= busy_max * (seen_at - before_at):
            return
