"""A process that has imported what others need and only forks: one child per connection.

It never reads from a connection: the child does, so nobody can block it, and it holds nothing of
its callers. Two use it: the zygote (supervisors) and the preloader (ranks).
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from workers.supervisor import linux, wire

_LOOK_AROUND_S = 1.0
_LISTEN_LIMIT_S = 10.0


def serve(
    path: Path,
    handle: Callable[[wire.Wire], int],
    *,
    owner_lock: Path,
    orphan_s: float,
    ready_fd: int | None = None,
    idle_s: float = float("inf"),
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Listen at `path` and fork a child for each connection, which calls `handle` and exits.

    Only one serves a path: a second one returns at once. `prepare` runs when the socket exists,
    so that early callers wait in line for it; `ready_fd` is closed at that moment. Returns when
    the socket has been replaced or removed, when nobody has held `owner_lock` for `orphan_s`, or
    when nobody has called for `idle_s`.
    """
    lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    if not take_lock(lock):
        return
    listener = wire.listen(path, backlog=512)
    identity = _identify(path)
    if ready_fd is not None:
        os.close(ready_fd)
    prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    gc.collect()
    gc.freeze()  # children share these pages; a collection would copy them
    owned_at = called_at = time.monotonic()
    while time.monotonic() - called_at < idle_s:
        readable, _, _ = select.select([listener], [], [], _LOOK_AROUND_S)
        if readable:
            connection, _ = listener.accept()
            if os.fork() == 0:
                _become_child(listener, lock, connection, handle)
            connection.close()
            called_at = time.monotonic()
            continue
        if is_locked(owner_lock):
            owned_at = time.monotonic()
        if identity != _identify(path) or time.monotonic() - owned_at > orphan_s:
            return


def take_lock(handle: int) -> bool:
    """Take the exclusive lock of an open file; False if somebody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Say whether some process holds the exclusive lock of this file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def start(arguments: list[str], socket: Path, *, environment: dict[str, str]) -> None:
    """Start a fork server, detached; return when it listens, or has failed to.

    The arguments get one more: the descriptor to close when the server listens. Its output goes
    to a file beside the socket.
    """
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    log = os.open(socket.with_suffix(".log"), flags, 0o600)
    ready, theirs = os.pipe()
    try:
        # A shell in between exits at once, so that the server belongs to init, not to us.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" & exit 0', "sh", *arguments, str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs],
            start_new_session=True,
            check=False,
            timeout=10.0,
            env={**environment, **linux.reserved_environment()},
        )
    finally:
        os.close(log)
        os.close(theirs)
        select.select([ready], [], [], _LISTEN_LIMIT_S)
        os.close(ready)


def _become_child(
    listener: socket.socket,
    lock: int,
    connection: socket.socket,
    handle: Callable[[wire.Wire], int],
) -> None:
    """Run the handler in its own session and exit with what it returns."""
    code = 70
    try:
        os.setsid()
        listener.close()
        os.close(lock)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = handle(wire.Wire(connection))
    except BaseException:  # noqa: BLE001  the child must never return into the server's loop
        traceback.print_exc()
    finally:
        os._exit(code)


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
