"""From what two runs left behind to a verdict. Pure: no row, no byte is read here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.core.errors import ServiceError


class Verdict(StrEnum):
    """What is promised of a resume."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    WEIGHTS_ONLY = "weights-only"
    UNKNOWN = "unknown"


class Why(StrEnum):
    """Why a verdict is what it is; documented in docs/verified-resume.md."""

    SAME_FILES = "SameFiles"
    METRICS_AGREE = "MetricsAgree"
    ONLY_WEIGHTS = "OnlyWeights"
    METRICS_DIFFER = "MetricsDiffer"
    NO_METRICS = "NoMetrics"
    STARTED_AGAIN = "StartedAgain"
    STEPS_DIFFER = "StepsDiffer"
    NOT_INTERRUPTED = "NotInterrupted"
    TOO_FEW_STEPS = "TooFewSteps"
    NO_CHECKPOINT = "NoCheckpoint"
    JOB_FAILED = "JobFailed"
    JOB_CANCELLED = "JobCancelled"
    JOB_DELETED = "JobDeleted"
    REFUSED = "Refused"
    GIVEN_UP = "GivenUp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict, and why.

    Attributes:
        is_compared: two ends were there to be compared.
    """

    verdict: Verdict
    reason: Why
    message: str
    is_compared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePair:
    """One file of the final checkpoints: its hash in each, None where it is missing.

    Attributes:
        is_same: both hold the same state; of `meta.json` not all of it is state.
    """

    path: str
    reference_sha256: str | None
    interrupted_sha256: str | None
    is_same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPair:
    """One metric of the final checkpoints, and whether the two are near enough."""

    name: str
    reference: float
    interrupted: float
    is_near: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the two runs left.

    Attributes:
        steps: of the final checkpoints, the reference's first.
        resumed_step: of the checkpoint of its own that the interrupted job went on from last;
            None when it never did.
        first_step_after: the first step that it said anything of after that; None when it was
            silent.
    """

    steps: tuple[int, int]
    resumed_step: int | None
    first_step_after: int | None = None
    files: tuple[FilePair, ...]
    metrics: tuple[MetricPair, ...] = field(default=())


def unknown(reason: Why, message: str) -> Finding:
    """Return that nothing could be compared."""
    return Finding(verdict=Verdict.UNKNOWN, reason=reason, message=message, is_compared=False)


def refused(error: ServiceError) -> Finding:
    """Return that the second job was not accepted, though the first one was."""
    told = "; ".join(f"{one.pointer} {one.message}" for one in error.problems) or str(error)
    return unknown(Why.REFUSED, f"the interrupted job was refused: {told}"[:1000])


def given_up(error: Exception, count: int) -> Finding:
    """Return that the service could not go on with it, however often it tried."""
    return unknown(
        Why.GIVEN_UP,
        f"the service failed at it {count} times, last with {type(error).__name__}: its log says "
        "more; ask again once that is mended",
    )


def decide(evidence: Evidence) -> Finding:
    """Return the verdict on two runs that have both come to a good end."""
    resumed, (reference_step, interrupted_step) = evidence.resumed_step, evidence.steps
    if resumed is None or resumed >= interrupted_step:
        return unknown(
            Why.NOT_INTERRUPTED,
            "it was never killed between a checkpoint and its end: let it save before the end, "
            "with trainmaster.train or when run.checkpoint_requested(), and say its steps with "
            "run.progress or run.log",
        )
    is_same = all(pair.is_same for pair in evidence.files)
    has_only_weights = _has_only_weights(pair.path for pair in evidence.files)
    first = evidence.first_step_after
    if first is not None and first < resumed and (is_same or not has_only_weights):
        return Finding(
            verdict=Verdict.UNKNOWN,
            reason=Why.STARTED_AGAIN,
            message=f"it began again at step {first} and did not go on from the checkpoint of "
            f"step {resumed}: let it load run.latest_checkpoint()",
        )
    if is_same and reference_step == interrupted_step:
        return Finding(
            verdict=Verdict.EXACT,
            reason=Why.SAME_FILES,
            message=f"killed and resumed from step {resumed}, it left the same state at step "
            f"{interrupted_step} as without: {len(evidence.files)} files, by SHA-256",
        )
    if has_only_weights:
        return Finding(
            verdict=Verdict.WEIGHTS_ONLY,
            reason=Why.ONLY_WEIGHTS,
            message="its checkpoints hold weights and nothing else, so the optimizer, the random "
            "numbers and the place in the data begin anew",
        )
    if reference_step != interrupted_step:
        return Finding(
            verdict=Verdict.UNKNOWN,
            reason=Why.STEPS_DIFFER,
            message=f"it ended at step {interrupted_step}, and at step {reference_step} without "
            "the interruption",
        )
    return _compare_metrics(evidence)


def pair_metrics(
    reference: Mapping[str, object],
    interrupted: Mapping[str, object],
    *,
    tolerance: float,
    only: str | None = None,
) -> tuple[MetricPair, ...]:
    """Return the metrics that both have and that say how good the model is.

    Two are near when they differ by no more than `tolerance` of the larger one. How fast it went
    is left out: metrics whose last word is one of time or speed.

    Args:
        reference, interrupted: values by name, as checkpoints carry them.
        tolerance: relative, such as 0.05.
        only: the one that counts, where somebody has said so.
    """
    pairs = []
    for name in sorted(reference.keys() & interrupted.keys()):
        if name != only and (only is not None or _ABOUT_SPEED.search(name)):
            continue
        one, other = _number(reference[name]), _number(interrupted[name])
        is_near = one == other or abs(one - other) <= tolerance * max(abs(one), abs(other))
        pairs.append(MetricPair(name=name, reference=one, interrupted=other, is_near=is_near))
    return tuple(pairs)


_ABOUT_SPEED = re.compile(r"(^|[/_.])(second|seconds|ms|time|speed|throughput|mfu|bytes)$")
_WEIGHTS = re.compile(r"\.safetensors$|(^|/)pytorch_model[^/]*\.bin$")
# Beside weights, and no state of a training: what describes a model and reads its input.
_DESCRIBING = re.compile(
    r"(^|/)(meta\.json|config\.json|[^/]*_config\.json|[^/]*\.index\.json|tokenizer[^/]*"
    r"|special_tokens_map\.json|vocab[^/]*|merges\.txt|[^/]*\.md)$"
)


def _has_only_weights(paths: Iterable[str]) -> bool:
    rest = [path for path in paths if not _DESCRIBING.search(path)]
    return bool(rest) and all(_WEIGHTS.search(path) for path in rest)


def _compare_metrics(evidence: Evidence) -> Finding:
    if not evidence.metrics:
        return Finding(
            verdict=Verdict.UNKNOWN,
            reason=Why.NO_METRICS,
            message="it left other bits, and no metric with the final checkpoints to compare",
        )
    far = [pair for pair in evidence.metrics if not pair.is_near]
    if far:
        told = ", ".join(f"{p.name} {p.interrupted:.4g}, not {p.reference:.4g}" for p in far[:5])
        return Finding(
            verdict=Verdict.UNKNOWN,
            reason=Why.METRICS_DIFFER,
            message=f"killed and resumed, it ended elsewhere: {told}",
        )
    told = ", ".join(
        f"{p.name} {p.interrupted:.4g} and {p.reference:.4g}" for p in evidence.metrics[:5]
    )
    return Finding(
        verdict=Verdict.EQUIVALENT,
        reason=Why.METRICS_AGREE,
        message=f"it left other bits, and metrics that agree: {told}",
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | str) else math.nan
