"""Which mode a job asks for, and what this version has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainmaster.train.allreduce import Allreduce
from trainmaster.train.outer import MODES
from trainmaster.train.outer.codec import CODECS, STEP_CODECS
from trainmaster.train.replicas import Replicas
from trainmaster.train.synchronization import Synchronization, UnsupportedMode

if TYPE_CHECKING:
    from trainmaster.run import Run


COMPRESSIONS: dict[str, tuple[str, ...]] = {
    "allreduce": tuple(Allreduce.COMPRESSIONS),
    **{mode: STEP_CODECS if mode == "parameter_server" else CODECS for mode in MODES},
}
"""What each mode can send in."""


def choose_synchronization(run: Run, device: str | None) -> Synchronization:
    """Join the others in the way that a run's description asks for.

    Raises:
        UnsupportedMode: none of ours is that.
    """
    sync = run.description.get("sync") or {}
    mode, compression = sync.get("mode") or "allreduce", sync.get("compression") or "none"
    if mode not in COMPRESSIONS:
        raise UnsupportedMode(
            f"sync.mode = {mode}: trainmaster.train has {', '.join(COMPRESSIONS)}: name one of them"
        )
    if compression not in COMPRESSIONS[mode]:
        raise UnsupportedMode(
            f"sync.compression = {compression} with sync.mode = {mode}: name one of "
            f"{', '.join(COMPRESSIONS[mode])}"
        )
    if mode == "allreduce":
        return Allreduce(run, device, compression)
    return Replicas(run, device)
