"""The job spec as a document: which fields, which types, which bounds. Shapes only.

Mirrors `scheduler.core.spec` field by field (a test compares them); what a spec may mean together
is in `scheduler.core.spec_rules`. Strict: no text becomes a number, no field is unknown.
"""

from __future__ import annotations

from datetime import MAXYEAR, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api import shapes

ENV_BYTES_MAX = 32 * 1024


def _instant(text: str) -> str:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None or "T" not in text.upper():
        raise ValueError("must be an instant with its zone, such as 2031-05-01T06:00:00Z")
    # A day from the ends of the calendar: other zones, a database's too, must be able to say it.
    if not 1 < instant.year < MAXYEAR:
        raise ValueError("must lie in the years 2 to 9998: choose a nearer one, or leave it out")
    return text


def _small(env: dict[str, str]) -> dict[str, str]:
    if sum(len(name.encode()) + len(value.encode()) for name, value in env.items()) > ENV_BYTES_MAX:
        raise ValueError(f"must have at most {ENV_BYTES_MAX} bytes in all")
    return env


Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=shapes.TEXT)]
LabelKey = Annotated[str, StringConstraints(pattern=shapes.LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(max_length=256, pattern=shapes.TEXT)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Priority = Annotated[int, Field(ge=0, le=100)]
Identifier = Annotated[str, StringConstraints(pattern=shapes.IDENTIFIER)]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=shapes.TEXT)]
Argument = Annotated[str, StringConstraints(max_length=4096, pattern=shapes.NO_NUL)]
VariableName = Annotated[str, StringConstraints(pattern=shapes.VARIABLE_NAME)]
InputName = Annotated[str, StringConstraints(pattern=shapes.PLAIN_NAME)]
InputSource = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=shapes.TEXT)]
Requirement = Annotated[str, StringConstraints(pattern=shapes.REQUIREMENT, max_length=512)]
Workers = Annotated[int, Field(ge=1, le=4096)]
Instant = Annotated[
    str,
    StringConstraints(max_length=40),
    AfterValidator(_instant),
    Field(json_schema_extra={"format": "date-time"}),
]


class Document(BaseModel):
    """Base of what comes in: strict, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ResourcesDocument(Document):
    """What one worker takes. Left out: one GPU where the pool has any, and one CPU."""

    model_config = ConfigDict(title="Resources")

    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    cpus: Annotated[float, Field(ge=0.001, le=4096)] | None = None
    memory_gib: Annotated[float, Field(ge=0.001, le=1_000_000)] | None = None
    gpu_models: Annotated[
        list[Name], Field(max_length=64, description="Any of these, such as H100; empty: any.")
    ] = []
    gpu_memory_gib: Annotated[
        Annotated[float, Field(ge=0.001, le=1_000_000)] | None,
        Field(description="Each GPU has at least this much."),
    ] = None
    spread: Annotated[
        bool, Field(description="May be split over nodes even where one could hold it.")
    ] = False


class ParallelDocument(Document):
    """How one model copy is spread and how many copies there are; the product is `workers`."""

    model_config = ConfigDict(title="Parallel")

    data: Workers = 1
    shard: Workers = 1
    tensor: Workers = 1
    pipeline: Workers = 1


class SyncDocument(Document):
    """How the replicas are joined."""

    model_config = ConfigDict(title="Sync")

    mode: Literal["allreduce", "local_sgd", "diloco", "parameter_server", "gossip"] = "allreduce"
    every: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    compression: Literal["none", "fp16", "bf16", "int8", "int4", "topk"] = "none"
    staleness: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    servers: Workers | None = None
    compensation: Annotated[float, Field(ge=0, le=1000)] | None = None
    outer_lr: Annotated[float, Field(gt=0, le=1000)] | None = None
    outer_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    fragments: Annotated[int, Field(ge=1, le=4096)] | None = None
    graph: Name | None = None


class EnvironmentDocument(Document):
    """The Python environment of the ranks; empty: the default job environment."""

    model_config = ConfigDict(title="Environment")

    python: Annotated[str, StringConstraints(pattern=shapes.PYTHON_VERSION)] | None = None
    requirements: Annotated[list[Requirement], Field(max_length=256)] = []


class KeepBestDocument(Document):
    """Which checkpoints are kept for their metric."""

    model_config = ConfigDict(title="KeepBest")

    metric: Name
    mode: Literal["min", "max"] = "max"
    count: Annotated[int, Field(ge=1, le=1000)] = 1


class CheckpointPolicyDocument(Document):
    """When checkpoints are made and which are kept."""

    model_config = ConfigDict(title="CheckpointPolicy")

    every_steps: Annotated[int, Field(ge=1, le=10**12)] | None = None
    every_seconds: Annotated[float, Field(ge=1, le=2_592_000)] | None = 300.0
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    keep_best: KeepBestDocument | None = None


class RetryDocument(Document):
    """How often a job is tried again: for its own faults, and for those of machines."""

    model_config = ConfigDict(title="Retry")

    max_user_failures: Annotated[int, Field(ge=0, le=1000)] = 0
    max_infra_failures: Annotated[int, Field(ge=0, le=1000)] = 10
    backoff_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0


class LimitsDocument(Document):
    """Where the service stops the job."""

    model_config = ConfigDict(title="Limits")

    wall_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    gpu_hours: Annotated[
        Annotated[float, Field(gt=0, le=1_000_000)] | None,
        Field(description="GPUs x hours, over all attempts."),
    ] = None
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    on_deadline: Literal["fail", "pause"] = "fail"
    on_budget: Literal["fail", "pause"] = "pause"


class HealthDocument(Document):
    """What is done about a job that stalls or diverges."""

    model_config = ConfigDict(title="Health")

    stall_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = 600
    on_stall: Literal["restart", "fail"] = "restart"
    on_nan: Literal["fail", "ignore"] = "fail"


class ElasticDocument(Document):
    """Between how many workers a job may be resized."""

    model_config = ConfigDict(title="Elastic")

    min_workers: Workers
    max_workers: Workers


class JobSpecDocument(Document):
    """One request to train: either `recipe`, or `code` and `entrypoint`. All else has a default."""

    model_config = ConfigDict(
        title="JobSpec",
        json_schema_extra={
            "examples": [
                {"recipe": "image-classifier", "workers": 2, "config": {"epochs": 3}},
                {
                    "name": "lm-small",
                    "code": "file_01kasy0e5xq5b2p0v3m8n7r4tz",
                    "entrypoint": "train.py",
                    "args": ["--epochs", "3"],
                    "workers": 2,
                    "checkpoint": {"every_steps": 100, "keep_last": 2},
                },
            ]
        },
    )

    name: Annotated[Name | None, Field(description="What people call it; not unique.")] = None
    project: Annotated[Name, Field(description="The project of your key unless given.")] = "default"
    labels: Annotated[Labels, Field(description="Your own marks, to find jobs by.")] = {}
    recipe: Annotated[Name | None, Field(description="A built-in trainer; see /v1/recipes.")] = None
    code: Annotated[Identifier | None, Field(description="An uploaded bundle (file_…).")] = None
    entrypoint: Annotated[
        RelativePath | None, Field(description="The script in the bundle that every rank runs.")
    ] = None
    args: Annotated[list[Argument], Field(max_length=1024, description="Of the script.")] = []
    framework: Literal["torch", "tensorflow", "other"] = "torch"
    environment: EnvironmentDocument = EnvironmentDocument()
    config: Annotated[
        dict[str, Any], Field(description="What the code reads as `run.config`.")
    ] = {}
    workers: Annotated[Workers | None, Field(description="Ranks; 1 unless given.")] = None
    resources: ResourcesDocument = ResourcesDocument()
    parallel: ParallelDocument | None = None
    sync: SyncDocument = SyncDocument()
    inputs: Annotated[
        dict[InputName, InputSource],
        Field(max_length=64, description="Files (file_…) or allowed directories (dir:/…)."),
    ] = {}
    env: Annotated[
        dict[VariableName, Argument],
        Field(max_length=128, description="Environment variables of the ranks."),
        AfterValidator(_small),
    ] = {}
    secrets: Annotated[list[VariableName], Field(max_length=64)] = []
    checkpoint: CheckpointPolicyDocument = CheckpointPolicyDocument()
    resume_from: Annotated[
        Identifier | None, Field(description="A checkpoint (ckpt_…) to start from.")
    ] = None
    retry: RetryDocument = RetryDocument()
    limits: LimitsDocument = LimitsDocument()
    health: HealthDocument = HealthDocument()
    elastic: Annotated[
        ElasticDocument | None,
        Field(description="Bounds of `POST /v1/jobs/{id}/resize`; null: the size is fixed."),
    ] = None
    preemptible: Annotated[
        bool, Field(description="May be asked to save and wait for a job that goes first.")
    ] = True
    privacy: dict[str, Any] | None = None
    depends_on: Annotated[
        list[Identifier],
        Field(max_length=64, description="Jobs of the project that must succeed first."),
    ] = []
    begin_at: Annotated[Instant | None, Field(description="Not to start before.")] = None
    hold: Annotated[bool, Field(description="Wait until released.")] = False
    priority: Annotated[Priority, Field(description="Higher goes first.")] = 50
    queue: Annotated[Name, Field(description="That of the pool unless given.")] = "default"
    pool: Annotated[Name, Field(description="That of the queue unless given.")] = "default"
