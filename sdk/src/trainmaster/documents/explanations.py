"""Why a job is where it is, and what would become of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster._errors import FieldProblem, parse_field_problems
from trainmaster.documents.values import Resource, empty, instant, nested, several


@dataclass(frozen=True, kw_only=True)
class Ahead(Resource):
    """Who waits and goes first: jobs of the own project by id, those of others as numbers."""

    own_job_ids: list[str] = empty(list)
    num_own: int = 0
    own_gpu_hours: float = 0.0
    num_others: int = 0
    others_gpu_hours: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Expectation(Resource):
    """When something happens: one in ten before p10, one in ten after p90; or why not told."""

    p10_at: datetime | None = instant()
    p50_at: datetime | None = instant()
    p90_at: datetime | None = instant()
    latest_at: datetime | None = instant()
    basis: str | None = None
    withheld: str | None = None


@dataclass(frozen=True, kw_only=True)
class Option(Resource):
    """A change of the spec, as a JSON merge patch, with which a job would start sooner."""

    change: Mapping[str, Any] = empty(dict)
    start_at: datetime | None = instant()
    sooner_seconds: float | None = None
    resizable: bool = False


@dataclass(frozen=True, kw_only=True)
class Step(Resource):
    """Something to do about a job."""

    text: str
    command: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankNow(Resource):
    """One rank of a job that runs: what it does now, and did with the last minute of its time."""

    rank: int
    node: str = ""
    state: str = ""
    step: int | None = None
    phase: str | None = None
    window_seconds: float | None = None
    shares: Mapping[str, float] | None = None
    memory_peak_bytes: int | None = None
    gpu_memory_peak_bytes: int | None = None
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Ranks(Resource):
    """What the ranks of a job that runs do with their time, and which of them is slow."""

    message: str | None = None
    slow_rank: int | None = None
    cause: str | None = None
    ranks: list[RankNow] = several(RankNow)


@dataclass(frozen=True, kw_only=True)
class Explanation(Resource):
    """Why a job is where it is, what comes next, and what can be done."""

    job_id: str | None = None
    project: str | None = None
    state: str | None = None
    reason: str | None = None
    message: str = ""
    asked_at: datetime | None = instant()
    numbers: Mapping[str, int] = empty(dict)
    ahead: Ahead | None = nested(Ahead)
    start: Expectation | None = nested(Expectation)
    end: Expectation | None = nested(Expectation)
    ranks: Ranks | None = nested(Ranks)
    options: list[Option] = several(Option)
    options_complete: bool = True
    next: list[Step] = several(Step)


@dataclass(frozen=True, kw_only=True)
class Communication(Resource):
    """What one step sends from each rank, and how long it takes; None where it is not known."""

    backend: str = ""
    num_parameters: int | None = None
    bytes_per_step: float | None = None
    bytes_per_step_by_phase: Mapping[str, float] = empty(dict)
    wire_bytes_per_step: float | None = None
    reduction_vs_ddp: float | None = None
    transfer_seconds: float | None = None
    compute_seconds: float | None = None
    step_seconds: float | None = None
    missing: list[str] = empty(list)


@dataclass(frozen=True, kw_only=True)
class Simulation(Explanation):
    """The same for a spec that was not submitted, or everything that is wrong with it."""

    would_be_accepted: bool
    communication: Communication | None = nested(Communication)
    errors: list[FieldProblem] = field(
        default_factory=list, metadata={"convert": parse_field_problems}
    )
    spec: Mapping[str, Any] | None = None
