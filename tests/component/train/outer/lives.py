"""Replicas that are killed and come back."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge, until

NUMBERS = itertools.count()  # of lives


class Replica:
    """One life of one replica."""

    def __init__(self, forge: Forge, folder: Path, environment: dict[str, str], order: Any) -> None:
        self._forge = forge
        self._output = folder / f"{next(NUMBERS)}.output"
        target, rank, settings = order
        self.pid: int = forge._ask(
            {
                "start": {
                    "target": str(SCRIPTS / target),
                    "arguments": [json.dumps(settings)],
                    "environment": {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    "folder": str(folder),
                    "output": str(self._output),
                }
            }
        )["pid"]

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def steps(self) -> list[int]:
        """The steps that it has told."""
        return self._column(1)

    @property
    def rates(self) -> list[int]:
        """What it has told beside each step."""
        return self._column(2)

    @property
    def step(self) -> int:
        """The last step that it has told."""
        return [0, *self.steps][-1]

    def until_step(self, step: int) -> None:
        until(lambda: self.step >= step or "Error" in self.text, f"step {step}: {self.text[-500:]}")
        assert self.step >= step, self.text

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: self._forge.poll(self.pid) is not None, "it is dead")

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """What it says once it is done."""
        until(lambda: self._forge.poll(self.pid) is not None, f"it ends: {self.text[-1000:]}")
        done = [line[5:] for line in self.text.splitlines() if line.startswith("done ")]
        assert done, self.text
        result: dict[str, Any] = json.loads(done[0])
        return result

    def _column(self, number: int) -> list[int]:
        lines = [line for line in self.text.splitlines(keepends=True) if line.startswith("step ")]
        return [int(line.split()[number]) for line in lines if line.endswith("\n")]
