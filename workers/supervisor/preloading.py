"""Have a project's preloader started when it is not there; it is detached and serves all runs."""

from __future__ import annotations

from pathlib import Path

from workers.supervisor import forkserver


def ensure(
    socket: Path, *, python: Path, script: Path, library: Path, owner_lock: Path, orphan_s: float
) -> bool:
    """Start the preloader that serves at `socket` unless one does; True if it was started.

    Whoever connects is served when the preloader has imported what it imports. If it cannot
    start, connecting fails, and ranks start without it.
    """
    if forkserver.is_locked(socket.with_suffix(".lock")):
        return False
    forkserver.start(
        [str(python), str(script), str(socket), str(library), str(owner_lock), str(orphan_s)],
        socket,
        environment={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(socket.parent),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    return True
