"""Have a project's preloader started when it is not there; it is detached and serves all runs."""

from __future__ import annotations

from workers.supervisor import forkserver
from workers.supervisor.layout import Handover, NodeFolder


def ensure(handover: Handover, project: str, *, idle_s: float) -> bool:
    """Start the project's preloader unless one serves; True if it was started.

    Whoever connects is served when the preloader has imported what it imports. If it cannot
    start, connecting fails, and ranks start without it. It leaves after `idle_s` without callers.
    """
    socket = handover.preloader_socket(project)
    if forkserver.is_locked(socket.with_suffix(".lock")):
        return False
    forkserver.start(
        [
            str(handover.job_python),
            str(handover.preloader),
            str(socket),
            str(handover.library),
            str(NodeFolder(handover.node_dir).daemon_lock),
            str(handover.orphan_s),
            str(idle_s),
        ],
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
