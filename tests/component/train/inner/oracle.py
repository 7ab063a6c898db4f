"""Runs `scripts/oracle.py` on the ranks of a layout and returns how far it was from one process."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.component.train.ranks import Forge

SCRIPTS = Path(__file__).parent / "scripts"
# A few steps in double precision, whose sums differ in order only: some hundred roundings of 1e-16
# each, the largest where AdamW divides by small numbers. A mistake shows as 1e-4 and more.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Distance:
    """The largest differences from one process that takes whole batches."""

    weights: float
    optimizer: float
    losses: float
    norms: float

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(self.weights, self.optimizer, self.losses, self.norms)


def measure(forge: Forge, folder: Path, layout: dict[str, int], **order: Any) -> Distance:
    """Train spread over ranks and alone; both continue from `load` if that is given."""
    gang = forge.run(
        SCRIPTS / "oracle.py",
        folder,
        json.dumps({"layout": layout, **order}),
        ranks=math.prod(layout.values()),
    )
    return Distance(**json.loads(gang.said("result")))
