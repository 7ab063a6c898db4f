"""What the lives of ranks have written, and killing them: beside scripts/surviving.py."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.services import wait_for

SCRIPT = "surviving.py"


class Told:
    """What the lives of the ranks have written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def pids(self, rank: int) -> list[int]:
        """Of a rank's lives, the oldest first."""
        return [int(each.suffix[1:]) for each in sorted(self._folder.glob(f"{rank}.*"))]

    def read(self, rank: int, pid: int) -> dict[str, Any]:
        (path,) = self._folder.glob(f"{rank}.*.{pid}")
        text = path.read_text()
        said: dict[str, Any] = json.loads(text) if text else {"step": 0}
        return said

    def kill(self, rank: int, *, at_step: int) -> None:
        """Kill a rank's first life once it has come so far, and wait for the second to step."""

        def has_come() -> bool:
            return bool(self.pids(rank)) and self.read(rank, self.pids(rank)[0])["step"] >= at_step

        wait_for(f"rank {rank} at step {at_step}", has_come, within_s=60)
        (pid,) = self.pids(rank)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"another rank {rank}", lambda: len(self.pids(rank)) == 2)
