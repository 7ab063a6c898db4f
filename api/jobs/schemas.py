"""Jobs as they go over the wire: what comes in beside the spec, and what goes out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from api.errors import ErrorItem
from api.jobs.spec_schema import (
    Document,
    Identifier,
    LabelKey,
    LabelValue,
    Name,
    Priority,
    Workers,
)
from api.pages import ListEnvelope
from scheduler.core.states import JobState

# Stored specs were checked when they came in; checking them again on every read would make an
# old job unreadable once a bound changes. The OpenAPI document names the schema all the same.
StoredSpec = Annotated[dict[str, Any], WithJsonSchema({"x-schema": "JobSpec"})]

_JOB_ID = "job_01kasy0e5xq5b2p0v3m8n7r4tz"
_ATTEMPT_ID = "att_01kasy0f7c2k9d4w6h1x5j3p8s"


class Progress(BaseModel):
    """How far the newest attempt is, in steps."""

    step: int = Field(description="Steps done.", examples=[120])
    total_steps: int | None = Field(description="Steps in all, when the code says.", examples=[900])
    steps_per_second: float | None = Field(examples=[31.5])
    remaining_seconds: float | None = Field(
        description="At the present speed; null when not known.", examples=[24.8]
    )


class AttemptSummary(BaseModel):
    """The newest attempt."""

    id: str = Field(examples=[_ATTEMPT_ID])
    number: int = Field(description="1 for the first attempt of a job.", examples=[1])
    nodes: list[str] = Field(description="Names of its nodes, by node rank.", examples=[["box1"]])


class Condition(BaseModel):
    """One aspect of a job, as Kubernetes has it."""

    type: str = Field(examples=["Started"])
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(examples=["Training"])
    message: str
    last_transition_time: datetime


class Reservation(BaseModel):
    """A promise to a job that waits."""

    start_at: datetime = Field(
        description="It starts then at the latest, unless something more urgent comes, machines "
        "are lost, or others overrun; each time this is postponed is an event."
    )


Verdict = Literal["exact", "equivalent", "weights-only", "unknown"]


class ResumeVerdict(BaseModel):
    """How well jobs of this code, configuration and layout resume, as a verification has shown."""

    verdict: Verdict = Field(
        description="`exact`: bit for bit. `equivalent`: other bits, metrics that agree. "
        "`weights-only`: the checkpoint holds no more. `unknown`: the reason says why."
    )
    reason: str = Field(examples=["NotVerified"])
    message: str
    verification_id: str | None = Field(description="Where the verdict comes from.")
    verified_at: datetime | None


class Job(BaseModel):
    """One request to train, and where it is."""

    id: str = Field(examples=[_JOB_ID])
    object: Literal["job"] = "job"
    name: str = Field(examples=["image-classifier"])
    project: str = Field(examples=["default"])
    state: JobState = Field(description="Values may be added in later versions.")
    reason: str = Field(description="Why it is in that state; see the docs.", examples=["Training"])
    message: str = Field(description="The same in words; may be empty.")
    state_changed_at: datetime
    terminal: bool = Field(description="Whether nothing can happen any more.")
    conditions: list[Condition]
    spec: StoredSpec = Field(
        description="As submitted, with every default filled in; limits and queue as edited, "
        "workers and parallel.data as resized."
    )
    priority: int = Field(examples=[50])
    queue: str = Field(examples=["default"])
    pool: str = Field(description="Where it runs.", examples=["default"])
    held: bool = Field(description="Whether it waits to be released.")
    waits_for: list[str] = Field(
        description="Jobs of `depends_on` that have not succeeded yet.", examples=[[]]
    )
    reservation: Reservation | None = Field(
        description="A guaranteed latest start; null when it has none."
    )
    resizing_to: int | None = Field(
        description="Workers that it goes on with once its attempt has saved and stopped; null "
        "when it keeps those of its spec.",
        examples=[None],
    )
    evictions: int = Field(
        description="How often it made room for others, or was moved.", examples=[0]
    )
    resume: ResumeVerdict
    progress: Progress | None
    attempt: AttemptSummary | None
    parent_job_id: str | None = Field(description="The job that it was made from.")
    created_at: datetime
    started_at: datetime | None = Field(description="When all ranks first ran.")
    finished_at: datetime | None
    labels: dict[str, str] = Field(examples=[{"team": "vision"}])
    version: int = Field(description="Grows by one with every event.", examples=[4])


class JobList(ListEnvelope[Job]):
    """One page of jobs."""


class LimitsPatch(Document):
    """Limits that may be changed later; `null` takes one away."""

    wall_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class JobPatch(Document):
    """A JSON merge patch: what is left out stays, `null` takes a label or a limit away."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"priority": 80}]})

    # The defaults are never seen: only what was given is looked at.
    name: Name = Field(default_factory=str)
    priority: Priority = Field(default_factory=int)
    queue: Annotated[
        Name,
        Field(default_factory=str, description="Of a waiting or paused job; brings its pool."),
    ]
    limits: LimitsPatch = Field(default_factory=LimitsPatch)
    labels: Annotated[
        dict[LabelKey, LabelValue | None] | None,
        Field(max_length=64, description="Merged into the labels; null for all takes all away."),
    ] = None


class ForkRequest(Document):
    """What is different in the new job."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"overrides": {"config": {"lr": 0.01}}}]}
    )

    checkpoint: Annotated[
        Identifier | None, Field(description="Where to start; the newest checkpoint unless given.")
    ] = None
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="A JSON merge patch of the spec."
    )


class ResizeRequest(Document):
    """How many workers the job is to have."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workers": 4}]})

    workers: Annotated[Workers, Field(description="Within the bounds of its spec's `elastic`.")]


class NoDocument(Document):
    """An empty object; the body may also be left out."""


class Validation(BaseModel):
    """What `POST /v1/jobs` would say of a spec."""

    object: Literal["validation"] = "validation"
    valid: bool
    errors: list[ErrorItem] = Field(description="Everything that is wrong, at once.")
    spec: StoredSpec | None = Field(description="With every default filled in; null if not valid.")


def read_verdict(text: str) -> Verdict:
    """Return a verdict as the API knows it."""
    return next((known for known in get_args(Verdict) if known == text), "unknown")
