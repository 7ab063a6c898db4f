"""Dying on purpose, in the middle of a training, so that one can see it resume.

Only in the one attempt that a verification interrupts. Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._wishes import Wishes

# In all, for a checkpoint that is being written: a short training would else be over before it.
_PATIENCE_S = 60.0
_LOOK_S = 0.005


class Interruption:
    """Wants a checkpoint at one step, and kills this rank at another, once there is one.

    Every rank beside rank 0, where the checkpoints are, decides for itself by the same rule, so
    these die at the same step where they go in step: nobody says goodbye to the others, as in a
    power cut. Ranks on other machines lose their peers.
    """

    def __init__(self, plan: Mapping[str, Any], checkpoints: Path, wishes: Wishes) -> None:
        self._save_at, self._kill_at = int(plan["save_at_step"]), int(plan["kill_at_step"])
        self._checkpoints = checkpoints
        self._wishes = wishes
        self._has_asked = self._has_complained = False
        self._waits_until_s: float | None = None

    def reach(self, step: int) -> None:
        """Take note that a step is done. May not return."""
        if step >= self._save_at and not self._has_asked:
            self._has_asked = self._wishes.is_checkpoint_wanted = True
        if step >= self._kill_at and self._has_checkpoint():
            sys.stderr.write(f"trainmaster: killed at step {step}, to verify that it resumes\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def _has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint on this machine; wait for one that is on its way.

        When patience is at an end, training goes on, and dies once the checkpoint is there.
        """
        while True:
            is_there = self._checkpoints.is_dir()
            names = [path.name for path in self._checkpoints.iterdir()] if is_there else []
            if any(name.startswith("ready-") for name in names):
                return True
            if not any(name.startswith("tmp-") for name in names) or not self._is_patient():
                return False
            time.sleep(_LOOK_S)

    def _is_patient(self) -> bool:
        if self._waits_until_s is None:
            self._waits_until_s = time.monotonic() + _PATIENCE_S
        if time.monotonic() < self._waits_until_s:
            return True
        if not self._has_complained:
            self._has_complained = True
            sys.stderr.write(
                "trainmaster: the checkpoint to resume from is not written after "
                f"{_PATIENCE_S:.0f} s: training goes on until it is, and is killed then\n"
            )
            sys.stderr.flush()
        return False
