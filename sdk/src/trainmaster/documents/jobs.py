"""A job, its executions, and what a checked spec looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster._errors import FieldProblem, parse_field_problems
from trainmaster.documents.values import Resource, empty, instant, nested

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Progress(Resource):
    """How far a job is: steps done, steps in all, steps per second, seconds left."""

    step: int | None = None
    total_steps: int | None = None
    steps_per_second: float | None = None
    remaining_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptRef(Resource):
    """The attempt that a job is in, or was in last."""

    id: str
    number: int = 1
    nodes: list[str] = empty(list)


@dataclass(frozen=True, kw_only=True)
class Reservation(Resource):
    """A promise to a job that waits: it starts then at the latest."""

    start_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class ResumeVerdict(Resource):
    """How well jobs of this code, configuration and layout resume.

    `verdict` is exact, equivalent, weights-only or unknown; `reason` and `message` say why.
    """

    verdict: str = "unknown"
    reason: str = ""
    message: str = ""
    verification_id: str | None = None
    verified_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class Job(Resource):
    """One request to train. `etag` guards edits: it names the version that was read."""

    id: str
    state: str
    name: str = ""
    project: str = ""
    reason: str | None = None
    message: str | None = None
    state_changed_at: datetime | None = instant()
    terminal: bool = False
    conditions: list[Mapping[str, Any]] = empty(list)
    spec: Mapping[str, Any] = empty(dict)
    priority: int | None = None
    queue: str = ""
    pool: str = ""
    held: bool = False
    waits_for: list[str] = empty(list)
    reservation: Reservation | None = nested(Reservation)
    resizing_to: int | None = None
    evictions: int = 0
    resume: ResumeVerdict | None = nested(ResumeVerdict)
    parent_job_id: str | None = None
    progress: Progress | None = nested(Progress)
    attempt: AttemptRef | None = nested(AttemptRef)
    created_at: datetime | None = instant()
    started_at: datetime | None = instant()
    finished_at: datetime | None = instant()
    labels: Mapping[str, str] = empty(dict)
    version: int = 0
    etag: str | None = field(default=None, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.terminal or self.state in TERMINAL_STATES

    @property
    def num_workers(self) -> int:
        """How many ranks its spec asks for."""
        workers, parallel = self.spec.get("workers"), self.spec.get("parallel")
        if isinstance(workers, int):
            return workers
        if not isinstance(parallel, dict):
            return 1
        return math.prod(size for size in parallel.values() if isinstance(size, int))


@dataclass(frozen=True, kw_only=True)
class Attempt(Resource):
    """One execution of a job on one allocation."""

    id: str
    number: int = 1
    state: str = ""
    reason: str | None = None
    message: str | None = None
    nodes: list[Mapping[str, Any]] = empty(list)
    resumed_from: str | None = None
    created_at: datetime | None = instant()
    started_at: datetime | None = instant()
    finished_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class Validation(Resource):
    """What the service says of a spec: what is wrong with it, or the spec with its defaults."""

    valid: bool
    errors: list[FieldProblem] = field(
        default_factory=list, metadata={"convert": parse_field_problems}
    )
    spec: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Verification(Resource):
    """A training that is run twice, once without and once with a kill, and compared.

    `state` is reference or interrupted, after the job that is due, or finished; `comparison` holds
    the files and metrics that were compared.
    """

    id: str
    state: str
    project: str = ""
    name: str = ""
    verdict: str | None = None
    reason: str | None = None
    message: str = ""
    reference_job_id: str = ""
    interrupted_job_id: str | None = None
    interruption: Mapping[str, Any] | None = None
    comparison: Mapping[str, Any] | None = None
    seed: int = 0
    tolerance: float = 0.0
    subject_sha256: str = ""
    spec: Mapping[str, Any] = empty(dict)
    version: int = 0
    created_at: datetime | None = instant()
    finished_at: datetime | None = instant()

    @property
    def is_finished(self) -> bool:
        """Whether the verdict is there."""
        return self.state == "finished"

    @property
    def job_id(self) -> str:
        """The job that is due, or was last."""
        return self.interrupted_job_id or self.reference_job_id
