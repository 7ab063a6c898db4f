"""What the service returns, as frozen values. Knows the names on the wire; does nothing.

Each value keeps its whole document in `raw`, fields of newer servers included, and reads what it
knows from there; unknown values of enums stay text.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

from trainmaster._errors import APIResponseError, FieldProblem, parse_field_problems

R = TypeVar("R", bound="Resource")

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_FRACTION = re.compile(r"\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A document of the service."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def parse(cls: type[R], document: Any) -> R:
        """Return the value of a document.

        Raises:
            APIResponseError: the document lacks a field that all versions have.
        """
        if not isinstance(document, dict):
            raise APIResponseError(f"expected a {cls.__name__}, got {type(document).__name__}")
        values: dict[str, Any] = {"raw": document}
        try:
            for each in dataclasses.fields(cls):
                if document.get(each.name) is not None:
                    convert: Callable[[Any], Any] | None = each.metadata.get("convert")
                    value = document[each.name]
                    values[each.name] = convert(value) if convert else value
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise APIResponseError(
                f"the server's {cls.__name__} cannot be read ({error}): is it a much newer version?"
            ) from error


def parse_instant(text: str) -> datetime:
    """Return an RFC 3339 time as an aware datetime in UTC, to the microsecond."""
    text = _FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def parse_number(value: float | str | None) -> float:
    """Return a number as metrics carry it: "NaN", "Infinity" and "-Infinity" come as text."""
    return math.nan if value is None else float(value)


def _instant() -> Any:
    return field(default=None, metadata={"convert": parse_instant})


def _nested(kind: type[Resource]) -> Any:
    return field(default=None, metadata={"convert": kind.parse})


def _several(kind: type[Resource]) -> Any:
    def parse(documents: Any) -> list[Any]:
        return [kind.parse(document) for document in documents]

    return field(default_factory=list, metadata={"convert": parse})


def _empty(kind: type[Any]) -> Any:
    return field(default_factory=kind)


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
    nodes: list[str] = _empty(list)


@dataclass(frozen=True, kw_only=True)
class Reservation(Resource):
    """A promise to a job that waits: it starts then at the latest."""

    start_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class ResumeVerdict(Resource):
    """How well jobs of this code, configuration and layout resume.

    `verdict` is exact, equivalent, weights-only or unknown; `reason` and `message` say why.
    """

    verdict: str = "unknown"
    reason: str = ""
    message: str = ""
    verification_id: str | None = None
    verified_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Job(Resource):
    """One request to train. `etag` guards edits: it names the version that was read."""

    id: str
    state: str
    name: str = ""
    project: str = ""
    reason: str | None = None
    message: str | None = None
    state_changed_at: datetime | None = _instant()
    terminal: bool = False
    conditions: list[Mapping[str, Any]] = _empty(list)
    spec: Mapping[str, Any] = _empty(dict)
    priority: int | None = None
    queue: str = ""
    pool: str = ""
    held: bool = False
    waits_for: list[str] = _empty(list)
    reservation: Reservation | None = _nested(Reservation)
    resizing_to: int | None = None
    evictions: int = 0
    resume: ResumeVerdict | None = _nested(ResumeVerdict)
    parent_job_id: str | None = None
    progress: Progress | None = _nested(Progress)
    attempt: AttemptRef | None = _nested(AttemptRef)
    created_at: datetime | None = _instant()
    started_at: datetime | None = _instant()
    finished_at: datetime | None = _instant()
    labels: Mapping[str, str] = _empty(dict)
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
    nodes: list[Mapping[str, Any]] = _empty(list)
    resumed_from: str | None = None
    created_at: datetime | None = _instant()
    started_at: datetime | None = _instant()
    finished_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Validation(Resource):
    """What the service says of a spec: what is wrong with it, or the spec with its defaults."""

    valid: bool
    errors: list[FieldProblem] = field(
        default_factory=list, metadata={"convert": parse_field_problems}
    )
    spec: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Ahead(Resource):
    """Who waits and goes first: jobs of the own project by id, those of others as numbers."""

    own_job_ids: list[str] = _empty(list)
    num_own: int = 0
    own_gpu_hours: float = 0.0
    num_others: int = 0
    others_gpu_hours: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Expectation(Resource):
    """When something happens: one in ten before p10, one in ten after p90; or why not told."""

    p10_at: datetime | None = _instant()
    p50_at: datetime | None = _instant()
    p90_at: datetime | None = _instant()
    latest_at: datetime | None = _instant()
    basis: str | None = None
    withheld: str | None = None


@dataclass(frozen=True, kw_only=True)
class Option(Resource):
    """A change of the spec, as a JSON merge patch, with which a job would start sooner."""

    change: Mapping[str, Any] = _empty(dict)
    start_at: datetime | None = _instant()
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
    ranks: list[RankNow] = _several(RankNow)


@dataclass(frozen=True, kw_only=True)
class Explanation(Resource):
    """Why a job is where it is, what comes next, and what can be done."""

    job_id: str | None = None
    project: str | None = None
    state: str | None = None
    reason: str | None = None
    message: str = ""
    asked_at: datetime | None = _instant()
    numbers: Mapping[str, int] = _empty(dict)
    ahead: Ahead | None = _nested(Ahead)
    start: Expectation | None = _nested(Expectation)
    end: Expectation | None = _nested(Expectation)
    ranks: Ranks | None = _nested(Ranks)
    options: list[Option] = _several(Option)
    options_complete: bool = True
    next: list[Step] = _several(Step)


@dataclass(frozen=True, kw_only=True)
class Communication(Resource):
    """What one step sends from each rank, and how long it takes; None where it is not known."""

    backend: str = ""
    num_parameters: int | None = None
    bytes_per_step: float | None = None
    bytes_per_step_by_phase: Mapping[str, float] = _empty(dict)
    wire_bytes_per_step: float | None = None
    reduction_vs_ddp: float | None = None
    transfer_seconds: float | None = None
    compute_seconds: float | None = None
    step_seconds: float | None = None
    missing: list[str] = _empty(list)


@dataclass(frozen=True, kw_only=True)
class Simulation(Explanation):
    """The same for a spec that was not submitted, or everything that is wrong with it."""

    would_be_accepted: bool
    communication: Communication | None = _nested(Communication)
    errors: list[FieldProblem] = field(
        default_factory=list, metadata={"convert": parse_field_problems}
    )
    spec: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Event(Resource):
    """One thing that happened to a job; `seq` counts them from 1 without gaps."""

    seq: int
    type: str
    job_id: str = ""
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    data: Mapping[str, Any] = _empty(dict)
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class LogLine(Resource):
    """A line of one rank's output, without its end; it begins at byte `offset` of its stream."""

    id: str
    text: str = ""
    attempt_id: str = ""
    attempt: int = 1
    rank: int = 0
    stream: str = "stdout"
    offset: int = 0
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class MetricPoint(Resource):
    """One value of one metric; `time` is in unix seconds, by the rank's clock."""

    step: int
    time: float = 0.0
    value: float = field(metadata={"convert": parse_number})
    key: str = ""
    rank: int = 0
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class MetricSummary(Resource):
    """What is known of one metric of one rank without reading its points."""

    key: str
    rank: int = 0
    count: int = 0
    last: MetricPoint | None = _nested(MetricPoint)
    min: float | None = field(default=None, metadata={"convert": parse_number})
    max: float | None = field(default=None, metadata={"convert": parse_number})


@dataclass(frozen=True, kw_only=True)
class MetricSeries(Resource):
    """The points of one metric of one rank, as three lists of equal length.

    `count` is how many there were before down-sampling.
    """

    key: str
    rank: int = 0
    steps: list[int] = _empty(list)
    times: list[float] = _empty(list)
    values: list[float] = field(
        default_factory=list,
        metadata={"convert": lambda values: [parse_number(value) for value in values]},
    )
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckpointFile(Resource):
    """One file of a checkpoint: where below it, how large, and its SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Resource):
    """A saved state of a job; it exists as a whole once `state` is `committed`."""

    id: str
    job_id: str = ""
    attempt_id: str = ""
    attempt: int = 1
    step: int | None = None
    metrics: Mapping[str, Any] = _empty(dict)
    state: str = ""
    size_bytes: int = 0
    files: list[CheckpointFile] = field(
        default_factory=list,
        metadata={"convert": lambda files: [CheckpointFile.parse(file) for file in files]},
    )
    pinned: bool = False
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class File(Resource):
    """An uploaded file: code of a job, or an input."""

    id: str
    filename: str = ""
    purpose: str = ""
    size_bytes: int = 0
    sha256: str = ""
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Room(Resource):
    """What workers can take on a node or in a pool."""

    gpus: int = 0
    cpus: float = 0.0
    memory_gib: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quarantine(Resource):
    """Why a node that keeps failing gets no new work for a while."""

    until: datetime | None = _instant()
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Node(Resource):
    """A machine that runs workers. `state` says whether it takes new work."""

    id: str
    name: str = ""
    pool: str = ""
    rack: str | None = None
    state: str = ""
    quarantine: Quarantine | None = _nested(Quarantine)
    capacity: Room | None = _nested(Room)
    free: Room | None = _nested(Room)
    gpus: list[Mapping[str, Any]] = _empty(list)
    num_attempts: int = 0
    created_at: datetime | None = _instant()
    heartbeat_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Pool(Resource):
    """A set of machines that jobs are placed on; its name is its id."""

    name: str
    num_nodes: int = 0
    num_nodes_ready: int = 0
    capacity: Room | None = _nested(Room)
    free: Room | None = _nested(Room)
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Queue(Resource):
    """A line in front of one pool; its name is its id. A closed one starts no jobs."""

    name: str
    pool: str = ""
    open: bool = True
    num_waiting: int = 0
    num_pending: int = 0
    num_active: int = 0
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class QuotaUse(Resource):
    """What is used of a quota now."""

    gpus: int = 0
    gpu_hours_this_month: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quota(Resource):
    """What a project, or one user of it (a key's id), is entitled to and may use at most."""

    id: str
    project: str = ""
    user: str | None = None
    weight: int = 1
    guaranteed_gpus: int = 0
    limit_gpus: int | None = None
    may_borrow: bool = True
    gpu_hours_per_month: float | None = None
    priority_max: int = 100
    in_use: QuotaUse | None = _nested(QuotaUse)
    version: int = 0
    created_at: datetime | None = _instant()
    updated_at: datetime | None = _instant()

    @property
    def etag(self) -> str:
        """Names the version that was read."""
        return f'"{self.version}"'


@dataclass(frozen=True, kw_only=True)
class Usage(Resource):
    """What one user of a project has used in a month, and what that means for its turn."""

    project: str
    user: str | None = None
    user_name: str | None = None
    month: str = ""
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    num_attempts: int = 0
    gpus_in_use: int = 0
    recent_gpu_hours: float = 0.0
    recent_share: float = 0.0
    fair_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe(Resource):
    """A built-in trainer; its name is its id. `config` is a JSON Schema, `example` a spec."""

    name: str
    title: str = ""
    description: str = ""
    config: Mapping[str, Any] = _empty(dict)
    inputs: Mapping[str, Any] = _empty(dict)
    metrics: list[Mapping[str, Any]] = _empty(list)
    example: Mapping[str, Any] = _empty(dict)


@dataclass(frozen=True, kw_only=True)
class Project(Resource):
    """What jobs and keys belong to."""

    id: str
    name: str = ""
    created_at: datetime | None = _instant()


@dataclass(frozen=True, kw_only=True)
class Key(Resource):
    """An API key. `key`, the secret, is there once: in the answer that makes it."""

    id: str
    name: str = ""
    role: str = ""
    project: str = ""
    last4: str = ""
    created_at: datetime | None = _instant()
    expires_at: datetime | None = _instant()
    revoked_at: datetime | None = _instant()
    key: str | None = field(default=None, repr=False)


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
    spec: Mapping[str, Any] = _empty(dict)
    version: int = 0
    created_at: datetime | None = _instant()
    finished_at: datetime | None = _instant()

    @property
    def is_finished(self) -> bool:
        """Whether the verdict is there."""
        return self.state == "finished"

    @property
    def job_id(self) -> str:
        """The job that is due, or was last."""
        return self.interrupted_job_id or self.reference_job_id
