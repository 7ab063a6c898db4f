"""The fork server for supervisors: starting one costs a fork instead of an interpreter.

Imports everything a supervisor needs, computes nothing. Its children become supervisors, or
nurseries for ranks that are executed rather than forked.
"""

from __future__ import annotations

import encodings.ascii
import encodings.idna  # noqa: F401  a connection's first use would cost each child 6 ms
import os
import signal
import sys
from pathlib import Path

from workers.supervisor import forkserver, linux, nursery, rank_process, supervise, wire
from workers.supervisor.files import open_regular


def run_zygote(path: Path, *, owner_lock: Path, orphan_s: float, ready_fd: int) -> None:
    """Serve at `path` until replaced, removed or orphaned."""
    linux.set_process_name("tm-zygote")
    # A nudge must not kill a supervisor that is too young to have its handler.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    forkserver.serve(
        path,
        _become_what_is_asked,
        owner_lock=owner_lock,
        orphan_s=orphan_s,
        ready_fd=ready_fd,
    )


def _become_what_is_asked(connection: wire.Wire) -> int:
    connection.socket.settimeout(10.0)
    message = connection.receive()
    if message is None:
        return 0
    if message["op"] == "nursery":
        return nursery.Nursery(connection, message, rank_process.launch_by_exec).run()
    run_dir = Path(message["run_dir"])
    _write_output_to(run_dir / "supervisor.log")
    connection.send({"pid": os.getpid()})
    connection.close()
    return supervise.run_supervisor(run_dir, is_salvage=bool(message["salvage"]))


def _write_output_to(path: Path) -> None:
    """Send stdout and stderr to the attempt's own file."""
    handle = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
