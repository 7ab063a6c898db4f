"""From what the core says to what the API shows: instants, hours, merge patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast

from api.explain import schemas
from api.explain.ranks import RankNow, judge
from models import Job
from scheduler.core.advice import find_steps
from scheduler.core.ahead import Ahead
from scheduler.core.calibration import Interval
from scheduler.core.explain import Running, Waiting
from scheduler.core.forecast import Unknown
from scheduler.core.options import Option
from scheduler.core.spec import Parallel
from scheduler.core.states import JobState

_HOUR_MS = 3_600_000
_RANKS_MAX = 256
_WAITING = frozenset({JobState.PENDING, JobState.QUEUED})
_NO_VIEW = "this process has no view of the scheduler"
_Basis = Literal["progress", "history", "durations", "grace"]


def is_about(said: Waiting | Running | None, state: JobState) -> bool:
    """Whether what was said fits a job in `state`; it may have moved in between."""
    if state in _WAITING:
        return isinstance(said, Waiting)
    return isinstance(said, Running) if state.has_attempt else said is None


def describe_job(
    job: Job,
    project: str,
    said: Waiting | Running | None,
    now: datetime,
    ranks: Sequence[RankNow] = (),
) -> schemas.Explanation:
    """Return the explanation of a job; `said` is None where only its row is known."""
    reason, message = job.reason, job.message
    numbers = {"attempts": job.num_attempts}
    if isinstance(said, Waiting):
        reason, message, numbers = said.reason, said.message, {**said.numbers, **numbers}
    if not job.state.has_attempt and job.state not in _WAITING:
        numbers |= {"user_failures": job.user_failures, "infra_failures": job.infra_failures}
    return schemas.Explanation(
        job_id=job.id,
        project=project,
        state=job.state,
        reason=reason,
        message=message,
        asked_at=now,
        numbers=numbers,
        ahead=show_ahead(said.ahead) if isinstance(said, Waiting) else None,
        start=_show_start(job, said),
        end=_show_end(job, said),
        ranks=show_ranks(ranks) if job.state is JobState.RUNNING and ranks else None,
        options=show_options(said, job.spec) if isinstance(said, Waiting) else [],
        options_complete=said.are_options_complete if isinstance(said, Waiting) else True,
        next=show_steps(reason, job.id),
    )


def show_ahead(ahead: Ahead) -> schemas.Ahead:
    """Return who goes first."""
    return schemas.Ahead(
        own_job_ids=list(ahead.own_ids),
        num_own=ahead.num_own,
        own_gpu_hours=_hours(ahead.own_gpu_ms),
        num_others=ahead.num_others,
        others_gpu_hours=_hours(ahead.others_gpu_ms),
    )


def show_ranks(ranks: Sequence[RankNow]) -> schemas.Ranks:
    """Return what ranks do with their time."""
    verdict = judge(ranks)
    return schemas.Ranks(
        message=None if verdict is None else verdict.message,
        slow_rank=None if verdict is None else verdict.slow_rank,
        cause=None if verdict is None else verdict.cause,
        ranks=[_show_rank(rank) for rank in ranks[:_RANKS_MAX]],
    )


def _show_rank(rank: RankNow) -> schemas.RankNow:
    fields = dataclasses.asdict(rank)
    window_s, shares = fields.pop("window_s"), fields.pop("shares")
    shown = {name: round(share, 4) for name, share in shares.items()}
    return schemas.RankNow(
        **fields, window_seconds=window_s, shares=schemas.Shares(**shown) if shown else None
    )


def show_start(start: Interval | Unknown, latest_ms: int | None) -> schemas.Start:
    """Return when a job starts."""
    return schemas.Start(**_show(start), latest_at=_instant(latest_ms))


def show_options(said: Waiting, spec: Mapping[str, Any]) -> list[schemas.Option]:
    """Return what would let a job with the document `spec` start sooner."""
    return [_show_option(option, spec) for option in said.options]


def show_steps(reason: str, job_id: str) -> list[schemas.Step]:
    """Return what to do."""
    return [
        schemas.Step(text=step.text, command=step.command or None)
        for step in find_steps(reason, job_id)
    ]


def _show_start(job: Job, said: Waiting | Running | None) -> schemas.Start | None:
    if isinstance(said, Waiting):
        return show_start(said.start, said.latest_start_ms)
    return show_start(Unknown(why=_NO_VIEW), None) if job.state in _WAITING else None


def _show_end(job: Job, said: Waiting | Running | None) -> schemas.End | None:
    if isinstance(said, Running):
        basis = cast("_Basis", said.basis) if said.basis else None
        return schemas.End(**_show(said.end), latest_at=_instant(said.latest_end_ms), basis=basis)
    if not job.state.has_attempt:
        return None
    return schemas.End(**_show(Unknown(why=_NO_VIEW)), latest_at=None, basis=None)


def _show(when: Interval | Unknown) -> dict[str, Any]:
    if isinstance(when, Unknown):
        return {"p10_at": None, "p50_at": None, "p90_at": None, "withheld": when.why}
    return {
        "p10_at": _instant(when.p10_ms),
        "p50_at": _instant(when.p50_ms),
        "p90_at": _instant(when.p90_ms),
        "withheld": None,
    }


def _show_option(option: Option, spec: Mapping[str, Any]) -> schemas.Option:
    parallel = spec.get("parallel")
    patch: dict[str, Any] = {}
    for path, value in option.change.items():
        *parents, name = path.split(".")
        inner = patch
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    if parallel is not None and "workers" in patch:
        # Fewer copies of the model; each is as large as before.
        patch["parallel"] = {"data": patch["workers"] // Parallel(**parallel).replica_size}
    gained_ms = option.gained_ms
    start_at = _instant(option.start_ms)
    assert start_at is not None
    return schemas.Option(
        change=patch,
        resizable="workers" in patch and spec.get("elastic") is not None,
        start_at=start_at,
        sooner_seconds=None if gained_ms is None else round(gained_ms / 1000, 1),
    )


def _instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)


def _hours(gpu_ms: int) -> float:
    return round(gpu_ms / _HOUR_MS, 2)
