"""Starts a server beside a rank, in a process of its own that outlives the rank.

Forked where that is safe: a process with one thread has no lock that another could hold, and it
has torch in it already, so a server is there in milliseconds. Else in the same interpreter anew,
with the same import path, in a few seconds.

A server writes one line once it listens, then nothing: it holds none of the rank's streams open.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
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
_BACKLOG = 1024
# Isolated, so that nothing in the current folder is taken for a module of Python's own.
_COMMAND = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from trainmaster.train.outer.serve import main; main()"
)
_READY = '{"port"'
_started: list[subprocess.Popen[str]] = []  # held, or Python would complain that they still run


@dataclass(frozen=True)
class Settings:
    """What a server is told.

    Attributes:
        server: its number.
        num_replicas: how many begin together.
        token: the job's, in hexadecimal.
        host: the address to listen on.
        store: host and port by which everybody looks for the store in which they find each
            other, to be opened here; None if there is one.
        grace_s: how long it stays when nobody is there and nobody has said goodbye.
    """

    server: int
    num_replicas: int
    token: str
    host: str
    store: tuple[str, int] | None
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
    listener = _listen(settings.host, 0)
    store = _open_store(settings) if settings.store else None
    ready.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    ready.flush()
    _let_go_of_streams()
    token = bytes.fromhex(settings.token)
    Server(listener, token, settings.server, settings.num_replicas, grace_s=settings.grace_s).run()
    del store


def _open_store(settings: Settings) -> TCPStore:
    assert settings.store is not None
    name, port = settings.store
    try:
        door = _listen(name, port)
        host = str(door.getsockname()[0])
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        # The others reach this machine by an address that somebody translates.
        door, host = socket.create_server(("", port), backlog=_BACKLOG), settings.host
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=_STORE_TIMEOUT,
        master_listen_fd=door.detach(),
    )


def _listen(host: str, port: int) -> socket.socket:
    """Listen on one address alone; torch itself would listen on every one."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # The whole of it: an IPv6 address of one link has the number of that link as its fourth part.
    return socket.create_server(address, family=family, backlog=_BACKLOG)


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
    begun_s = time.monotonic()
    try:
        line = _read_line(reading)
    finally:
        os.close(reading)
    if line.startswith(_READY):
        return _read_port(line)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    raise _explain(settings, line, begun_s)


def _read_line(reading: int) -> str:
    """Return what a server says first; "" if it ends before, or takes longer than it may."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    said = b""
    while not said.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        piece = os.read(reading, 4096) if left_s > 0 and poll.poll(left_s * 1000) else b""
        if not piece:
            break
        said += piece
    return said.decode("utf-8", "replace")


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
        stream = os.fdopen(ready, "w")
        try:
            serve(settings, stream)
            code = 0
        except BaseException as error:  # noqa: BLE001  whatever it is, the rank is told
            with contextlib.suppress(OSError):  # once it has its line, it reads no more
                stream.write(f"{type(error).__name__}: {error}".replace("\n", " ") + "\n")
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
    with contextlib.suppress(BrokenPipeError):  # it has ended already, and said why
        process.stdin.write(json.dumps(asdict(settings)) + "\n")
        process.stdin.close()
    begun_s = time.monotonic()
    watch = threading.Timer(START_TIMEOUT_S, process.kill)
    watch.start()
    said, line = [], ""
    for line in process.stdout:
        if line.startswith(_READY):
            break
        said.append(line)
    watch.cancel()
    process.stdout.close()
    if line.startswith(_READY):
        return _read_port(line)
    process.kill()
    process.wait()
    raise _explain(settings, "".join(said), begun_s)


def _read_port(line: str) -> int:
    return int(json.loads(line)["port"])


def _explain(settings: Settings, said: str, begun_s: float) -> RunError:
    """Return what a rank is told whose server did not come; `begun_s` is on the monotonic clock."""
    is_late = time.monotonic() - begun_s >= START_TIMEOUT_S
    why = f"not there within {START_TIMEOUT_S:.0f} s" if is_late else "it ended without a word"
    ports = "a free port" if settings.store is None else f"port {settings.store[1]}"
    return RunError(
        f"server {settings.server} of the outer group did not start ({said.strip() or why}): it "
        f"needs {ports} on {settings.host}, and memory for a second process beside rank "
        f"{settings.server}"
    )


def _let_go_of_streams() -> None:
    """Read and write nowhere: who waits for the rank's output to end must not wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
