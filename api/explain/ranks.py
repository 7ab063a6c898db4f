"""What the ranks of a running job do with their time, and which of them holds up the others. Pure.

Ranks that train together take their steps together: who is slow has the most time of its own, and
the others spend the difference waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PHASES = ("data_wait", "compute", "communication", "checkpoint", "idle")
SLOW_SHARE = 0.1
"""A rank is slow when it has this much more of its time for itself than the middle one."""
LARGE_SHARE = 0.2
"""What is worth saying of all ranks together."""
_WINDOW_MIN_S = 2.0

_TOLD = {
    "data_wait": "waits for data",
    "compute": "computes",
    "checkpoint": "saves",
    "idle": "does something outside of its training loop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNow:
    """One rank, as its supervisor saw it last.

    Attributes:
        shares: the part of the last stretch that each phase took; empty where nothing is measured.
    """

    rank: int
    node: str
    state: str
    step: int | None = None
    phase: str | None = None
    window_s: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    memory_peak_bytes: int | None = None
    gpu_memory_peak_bytes: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What can be said of the ranks together.

    Attributes:
        slow_rank: whom the others wait for, None where nobody stands out.
        cause: the phase in which it loses its time.
    """

    message: str
    slow_rank: int | None = None
    cause: str | None = None


def read_rank(worker: Mapping[str, Any], node: str) -> RankNow:
    """Return a rank from what a lease said of it."""
    times = worker.get("times") or {}
    window_s = float(times.get("window") or 0.0)
    shares = {}
    if window_s >= _WINDOW_MIN_S:
        shares = {name: min(1.0, float(times[name]) / window_s) for name in PHASES}
    return RankNow(
        rank=int(worker["rank"]),
        node=node,
        state=str(worker["state"]),
        step=worker.get("step"),
        phase=worker.get("phase"),
        window_s=window_s if shares else None,
        shares=shares,
        memory_peak_bytes=worker.get("memory_peak_bytes"),
        gpu_memory_peak_bytes=worker.get("gpu_memory_peak_bytes"),
        restarts=int(worker.get("restarts") or 0),
    )


def judge(ranks: Sequence[RankNow]) -> Verdict | None:
    """Return what holds the ranks up, None where nothing is measured."""
    measured = [rank for rank in ranks if rank.shares]
    if not measured:
        return None
    if len(measured) > 1:
        own = {rank.rank: 1.0 - rank.shares["communication"] for rank in measured}
        slow = max(measured, key=lambda rank: own[rank.rank])
        others = [rank for rank in measured if rank is not slow]
        if own[slow.rank] - median(own[rank.rank] for rank in others) >= SLOW_SHARE:
            return _blame(slow, others)
    return _tell_together(measured)


def _blame(slow: RankNow, others: Sequence[RankNow]) -> Verdict:
    usual = {name: median(rank.shares[name] for rank in others) for name in _TOLD}
    cause = max(_TOLD, key=lambda name: slow.shares[name] - usual[name])
    waiting = median(rank.shares["communication"] for rank in others)
    they = "the other" if len(others) == 1 else "the others"
    message = (
        f"rank {slow.rank} is slow: it {_TOLD[cause]} for {_percent(slow.shares[cause])} of its "
        f"time, {they} for {_percent(usual[cause])}; {they} wait{'s' * (len(others) == 1)} for it "
        f"and for communication for {_percent(waiting)}"
    )
    return Verdict(message=message, slow_rank=slow.rank, cause=cause)


def _tell_together(ranks: Sequence[RankNow]) -> Verdict:
    usual = {name: median(rank.shares[name] for rank in ranks) for name in PHASES}
    who = "it spends its time" if len(ranks) == 1 else "the ranks spend their time"
    parts = [
        f"{_percent(usual[name])} {text}"
        for name, text in (
            ("compute", "computing"),
            ("data_wait", "waiting for data"),
            ("communication", "communicating"),
            ("checkpoint", "saving"),
            ("idle", "outside of the training loop"),
        )
        if usual[name] >= 0.005
    ]
    message = f"{who}: {', '.join(parts)}"
    worst = max(("data_wait", "communication", "checkpoint"), key=lambda name: usual[name])
    return Verdict(message=message, cause=worst if usual[worst] >= LARGE_SHARE else None)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
