"""Trains a language model of 1.8 million parameters on ranks in network namespaces of their own.

They are joined by a bridge and limited by token buckets; the text is Python's own source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.bench import SCRIPTS, Bench
from tests.bench.gangs import run_gang
from tests.bench.networks import running_network
from trainmaster._layout import Layout

SHAPE = {"layers": 4, "heads": 4, "width": 192}
FAST_MBIT, SLOW_MBIT = 1000.0, 100.0
_LIMIT_S = 1200.0
_DEFAULTS: Mapping[str, Any] = {
    "lr": 2e-3, "decays": False, "from_step": 0, "validate_every": 0, "target_bits": 0.0,
    "begin": None, "end": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to train: a layout and how replicas are joined."""

    name: str
    parallel: Mapping[str, int]
    sync: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training said: all ranks of it."""

    ranks: Sequence[Mapping[str, Any]]

    def per_step(self, name: str) -> float:
        """Return the growth of a number per step, mean over the ranks."""
        spans: list[float] = [
            rank["marks"][-1][name] - rank["marks"][0][name] for rank in self.ranks
        ]
        return sum(spans) / len(self.ranks) / self.num_steps

    def sent_per_step(self, phases: Sequence[str] | None = None) -> float:
        """Return the logical bytes of some phases, or of all, likewise."""
        total = 0.0
        for rank in self.ranks:
            first, last = (rank["marks"][place]["sent_bytes"] for place in (0, -1))
            for phase, sent in last.items():
                if phases is None or phase in phases:
                    total += sent - first.get(phase, 0.0)
        return total / len(self.ranks) / self.num_steps

    @property
    def num_steps(self) -> int:
        """Steps between the two marks."""
        marks = self.ranks[0]["marks"]
        return int(marks[-1]["step"] - marks[0]["step"])

    @property
    def trained_s(self) -> float:
        """From the first mark to the last, without what measuring took."""
        marks = self.ranks[0]["marks"]
        return float(marks[-1]["at_s"] - marks[0]["at_s"] - self.ranks[0]["paused_s"])

    @property
    def utilization(self) -> float:
        """Share of that time in which nobody stood still for communication, mean over ranks."""
        waited_s = self.per_step("exposed_s") * self.num_steps
        return 1 - waited_s / self.trained_s

    @property
    def bits(self) -> float:
        """Bits per byte on all of the held-out text, at the end."""
        return float(self.ranks[0]["last_bits"])


def train(bench: Bench, mode: Mode, plan: Mapping[str, Any], rate_mbit: float) -> Trained:
    """Train as `scripts/language.py` says, on links that carry so much in each direction."""
    folder = bench.folder / f"language-{len(list(bench.folder.iterdir()))}"
    num_ranks = Layout(**mode.parallel).size
    whole = {**_DEFAULTS, **SHAPE, **plan}
    command = [str(SCRIPTS / "language.py"), str(folder / "result"), json.dumps(whole)]
    description = {"parallel": dict(mode.parallel), "sync": dict(mode.sync)}
    with running_network(num_ranks, rate_mbit=rate_mbit) as hosts:
        run_gang(hosts, command, description, folder, limit_s=_LIMIT_S)
    return Trained(
        [json.loads((folder / f"result.{rank}").read_text()) for rank in range(num_ranks)]
    )
