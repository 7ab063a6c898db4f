"""Starts a server beside a rank, in a process of its own that outlives the rank.

Forked where that is safe: a process with one thread has no lock that another could hold, and it
has torch in it already, so a server is there in milliseconds. Else in the same interpreter anew,
with the same import path, in a few seconds.

A server writes one line once it listens, then nothing: it holds none of the rank's streams open.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

import torch
from torch.distributed import TCPStore

from trainmaster._job_errors import RunError
from trainmaster.train.outer.server import Server

START_TIMEOUT_S = 120.0
_STORE_TIMEOUT = timedelta(seconds=60)
# Isolated, so that nothing in the current folder is taken for a module of Python's own.
_COMMAND = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from trainmaster.train.outer.serve import main; main()"
)
_started: list[subprocess.Popen[str]] = []  # held, or Python would complain that they still run


@dataclass(frozen=True)
class Settings:
    """What a server is told.

    Attributes:
        server: its number.
        num_replicas: how many begin together.
        token: the job's, in hexadecimal.
        host: the address to listen on.
        store_port: where to open the store in which everybody finds each other; None if there
            is one.
        grace_s: how long it stays when nobody is there and nobody has said goodbye.
    """

    server: int
    num_replicas: int
    token: str
    host: str
    store_port: int | None
    grace_s: float


def start_server(settings: Settings) -> int:
    """Start a server and return the port it listens on.

    Raises:
        RunError: it did not come up.
    """
    return _fork(settings) if _may_fork() else _execute(settings)


def main() -> None:
    """Be a server, with the settings on stdin."""
    settings = Settings(**json.loads(sys.stdin.readline()))
    serve(settings, sys.stdout)


def serve(settings: Settings, ready: IO[str]) -> None:
    """Listen, say where, and serve until the job is over."""
    torch.set_num_threads(1)  # its node's CPUs are the ranks'
    listener = socket.create_server((settings.host, 0), backlog=128)
    store = None
    if settings.store_port is not None:
        # On this address alone: torch itself would listen on every one.
        door = socket.create_server((settings.host, settings.store_port), backlog=1024)
        store = TCPStore(
            settings.host,
            settings.store_port,
            is_master=True,
            wait_for_workers=False,
            timeout=_STORE_TIMEOUT,
            master_listen_fd=door.detach(),
        )
    ready.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    ready.flush()
    _let_go_of_streams()
    token = bytes.fromhex(settings.token)
    Server(listener, token, settings.server, settings.num_replicas, grace_s=settings.grace_s).run()
    del store


def _may_fork() -> bool:
    if not hasattr(os, "fork") or threading.active_count() > 1 or torch.cuda.is_initialized():
        return False
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1  # native threads, such as OpenMP's
    except OSError:
        return False


def _fork(settings: Settings) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _become_server(settings, writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        line = answer.readline()
    return _read_port(line, settings)


def _become_server(settings: Settings, writing: int) -> None:
    """Be the server; never returns to what the rank was doing."""
    code = 1
    try:
        gc.freeze()
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        ready = os.dup2(writing, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        with os.fdopen(ready, "w") as stream:
            try:
                serve(settings, stream)
                code = 0
            except OSError as error:
                stream.write(json.dumps({"error": str(error)}) + "\n")
                stream.flush()
    finally:
        os._exit(code)


def _execute(settings: Settings) -> int:
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _COMMAND, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(settings)) + "\n")
    process.stdin.close()
    watch = threading.Timer(START_TIMEOUT_S, process.kill)
    watch.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith('{"port"'):
            break
    watch.cancel()
    process.stdout.close()
    return _read_port(said[-1] if said else "", settings, "".join(said))


def _read_port(line: str, settings: Settings, said: str = "") -> int:
    try:
        return int(json.loads(line)["port"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"server {settings.server} of the outer group did not start: {said or line or error}"
        ) from error


def _let_go_of_streams() -> None:
    """Read and write nowhere: who waits for the rank's output to end must not wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
