"""Runs of a small training in an outer group, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge

SCRIPT = SCRIPTS / "training.py"
# Twenty steps in double precision, whose sums differ in order only: a few hundred roundings of
# 1e-16 each.
TOLERANCE = 1e-12
# What a mistake changes at least.
SEEN = 1e-6


def train(
    forge: Forge,
    folder: Path,
    sync: dict[str, Any] | None,
    optimizer: str = "sgd",
    *,
    ranks: int = 1,
    size: int = 96,
    **more: Any,
) -> list[dict[str, Any]]:
    """Return what each rank has written; `sync` None is plain torch on the whole batches."""
    settings = {"sync": sync, "optimizer": optimizer, "size": size, "batch_size": 16, "epochs": 3}
    forge.run(SCRIPT, folder, json.dumps({**settings, **more}), ranks=ranks)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return how far two trainings are apart, in the parameter that differs most."""
    a, b = one["parameters"], other["parameters"]
    assert len(a) == len(b) > 0
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def spread(out: list[dict[str, Any]]) -> float:
    """Return how far the replicas of one training are apart."""
    return max(distance(out[0], each) for each in out)
