"""Which mode a job asks for, and what this version has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainmaster.train.allreduce import Allreduce
from trainmaster.train.synchronization import Synchronization, UnsupportedMode

if TYPE_CHECKING:
    from trainmaster.run import Run


def choose_synchronization(run: Run, device: str | None) -> Synchronization:
    """Join the others in the way that a run's description asks for.

    Raises:
        UnsupportedMode: none of ours is that.
    """
    sync = run.description.get("sync") or {}
    mode, compression = sync.get("mode") or "allreduce", sync.get("compression") or "none"
    if mode != "allreduce" or compression not in Allreduce.COMPRESSIONS:
        raise UnsupportedMode(
            f"sync.mode = {mode} with compression = {compression}: trainmaster.train has "
            f"mode allreduce with compression {', '.join(Allreduce.COMPRESSIONS)}"
        )
    return Allreduce(run, device, compression)
