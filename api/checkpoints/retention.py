"""Which checkpoints are kept: the newest, the best, the pinned. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.core.spec import CheckpointPolicy, KeepBest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A committed checkpoint, as far as keeping it depends on it."""

    checkpoint_id: str
    metrics: Mapping[str, Any]
    is_pinned: bool = False


def decide_expired(
    candidates: Sequence[Candidate], policy: CheckpointPolicy, *, in_use: Collection[str]
) -> list[str]:
    """Return the ids that may go.

    Args:
        candidates: newest first.
        in_use: ids from which an attempt resumes.

    The newest always stays: without it a crash would lose everything.
    """
    kept = {candidate.checkpoint_id for candidate in candidates[: max(1, policy.keep_last)]}
    if policy.keep_best is not None:
        kept |= _find_best(candidates, policy.keep_best)
    kept |= {candidate.checkpoint_id for candidate in candidates if candidate.is_pinned}
    kept |= set(in_use)
    return [each.checkpoint_id for each in candidates if each.checkpoint_id not in kept]


def _find_best(candidates: Sequence[Candidate], best: KeepBest) -> set[str]:
    rated = [
        (value, candidate.checkpoint_id)
        for candidate in candidates
        if (value := _read_metric(candidate, best.metric)) is not None
    ]
    # Sorting is stable: of equals the newer one is better.
    rated.sort(key=lambda pair: pair[0], reverse=best.mode == "max")
    return {checkpoint_id for _, checkpoint_id in rated[: best.count]}


def _read_metric(candidate: Candidate, name: str) -> float | None:
    value = candidate.metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None  # "NaN" and the infinities are text: no number to be best with
    return float(value) if math.isfinite(value) else None
