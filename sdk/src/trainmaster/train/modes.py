"""Which mode a job asks for, and what this version has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainmaster.train.allreduce import Allreduce
from trainmaster.train.outer import MODES
from trainmaster.train.outer.codec import CODECS
from trainmaster.train.replicas import Replicas
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
    if mode == "allreduce" and compression in Allreduce.COMPRESSIONS:
        return Allreduce(run, device, compression)
    if mode in MODES and compression in CODECS:
        return Replicas(run, device)
    raise UnsupportedMode(
        f"sync.mode = {mode} with compression = {compression}: trainmaster.train has allreduce "
        f"with {', '.join(Allreduce.COMPRESSIONS)}, and {', '.join(MODES)} with "
        f"{', '.join(CODECS)}"
    )
