"""Runs scripts as ranks in the job environment, each started in milliseconds from one forge."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(__file__).parent / "scripts"
JOB_PYTHON = Path(os.environ.get("TRAINMASTER_TEST_JOB_PYTHON", ROOT / ".venv-job/bin/python"))
LIMIT_S = 120.0


class Gang:
    """The ranks of one run."""

    def __init__(self, forge: Forge, pids: list[int], outputs: list[Path]) -> None:
        self._forge = forge
        self.pids = pids
        self._outputs = outputs
        self.codes: list[int | None] = [None] * len(pids)

    def output(self, rank: int = 0) -> str:
        """Return what a rank has printed so far."""
        path = self._outputs[rank]
        return path.read_text() if path.exists() else ""

    def said(self, word: str, rank: int = 0) -> str:
        """Return the rest of a rank's first line that begins with a word; "" if there is none."""
        for line in self.output(rank).splitlines():
            if line.startswith(word + " "):
                return line[len(word) + 1 :]
        return ""

    def until_said(self, word: str, rank: int = 0) -> str:
        """Wait for such a line."""
        until(lambda: self.said(word, rank) or self._has_ended(), f"rank {rank} says {word}")
        return self.said(word, rank)

    def signal(self, number: int, *ranks: int) -> None:
        """Send a signal to some ranks, or to all."""
        for rank in ranks or range(len(self.pids)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[rank], number)

    def wait(self) -> list[int]:
        """Wait for all ranks to end and return their exit codes."""
        try:
            until(self._has_ended, "the ranks end")
        except AssertionError as error:
            ends = [f"rank {rank}: {self.output(rank)[-2000:]}" for rank in range(len(self.pids))]
            raise AssertionError("\n".join([str(error), *ends])) from error
        return [code for code in self.codes if code is not None]

    def succeed(self) -> Gang:
        """Wait for all ranks to end well."""
        codes = self.wait()
        texts = "\n".join(self.output(rank) for rank in range(len(codes)))
        assert codes == [0] * len(codes), f"{codes}\n{texts}"
        return self

    def any_has_ended(self) -> bool:
        """Return whether a rank has ended."""
        self._has_ended()
        return any(code is not None for code in self.codes)

    def _has_ended(self) -> bool:
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is None:
                self.codes[rank] = self._forge.poll(pid)
        return None not in self.codes


class Forge:
    """A process with torch in it, and the ranks that it has forked."""

    def __init__(self) -> None:
        assert JOB_PYTHON.is_file(), (
            f"the job environment {JOB_PYTHON} is missing: "
            "python -m workers.node.job_environment makes it"
        )
        self._gangs: list[Gang] = []
        self._process = subprocess.Popen(
            [JOB_PYTHON, SCRIPTS / "forge.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        )
        assert self._receive() == {"ready": True}

    def start(
        self,
        target: str | Path,
        folder: Path,
        *arguments: str,
        ranks: int = 1,
        description: dict[str, Any] | None = None,
    ) -> Gang:
        """Start a script or module on some ranks, in a folder of their own."""
        folder.mkdir(parents=True, exist_ok=True)
        environment = common_environment(folder, ranks, description)
        outputs, pids = [], []
        for rank in range(ranks):
            outputs.append(folder / f"{rank}.output")
            outputs[rank].unlink(missing_ok=True)
            order = {
                "target": str(target),
                "arguments": arguments,
                "environment": {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "folder": str(folder),
                "output": str(outputs[rank]),
            }
            pids.append(self._ask({"start": order})["pid"])
        self._gangs.append(Gang(self, pids, outputs))
        return self._gangs[-1]

    def run(self, target: str | Path, folder: Path, *arguments: str, **more: Any) -> Gang:
        """Start, and wait for all ranks to end well."""
        return self.start(target, folder, *arguments, **more).succeed()

    def poll(self, pid: int) -> int | None:
        """Return the exit code of a rank, None while it runs."""
        code: int | None = self._ask({"poll": pid})["code"]
        return code

    def end_gangs(self) -> None:
        """Kill what is still running."""
        for gang in self._gangs:
            running = [rank for rank, code in enumerate(gang.codes) if code is None]
            if running:
                gang.signal(signal.SIGKILL, *running)
                gang.wait()
        self._gangs.clear()

    def close(self) -> None:
        """End the forge."""
        self.end_gangs()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(LIMIT_S)
        self._process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forge has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def running_forge() -> Iterator[Forge]:
    """Start a forge (about three seconds), and end it with all its ranks."""
    forge = Forge()
    try:
        yield forge
    finally:
        forge.close()


def common_environment(
    folder: Path, ranks: int, description: dict[str, Any] | None
) -> dict[str, str]:
    """Return what all ranks of a run find in their environment, but for their own number."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if description is not None:
        (folder / "run.json").write_text(json.dumps(description))
        environment["TRAINMASTER_RUN"] = str(folder / "run.json")
    return environment


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.01)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file with one JSON object per line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_values(path: Path, name: str) -> Sequence[tuple[int, float]]:
    """Return step and value of one metric in a spool."""
    lines = read_lines(path)
    return [(line["step"], line["values"][name]) for line in lines if name in line["values"]]
