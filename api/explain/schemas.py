"""Explanations as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.errors import ErrorItem
from scheduler.core.states import JobState

_JOB_ID = "job_01kasy0e5xq5b2p0v3m8n7r4tz"


class Ahead(BaseModel):
    """Who waits and goes first."""

    own_job_ids: list[str] = Field(
        description="Of the job's own project, the first 20 in their order.", examples=[[_JOB_ID]]
    )
    num_own: int = Field(description="Jobs of its project.", examples=[3])
    own_gpu_hours: float = Field(
        description="What those still need, as limits and history say.", examples=[12.5]
    )
    num_others: int = Field(description="Jobs of other projects.", examples=[11])
    others_gpu_hours: float = Field(examples=[140.0])


class Expectation(BaseModel):
    """When something happens; where that cannot be told, why not."""

    p10_at: datetime | None = Field(description="One in ten comes before.")
    p50_at: datetime | None = Field(description="As likely before as after.")
    p90_at: datetime | None = Field(description="One in ten comes after.")
    withheld: str | None = Field(
        description="Why no instant is given; null when one is.",
        examples=["fewer than 10 jobs have ended here: nobody knows how long jobs take"],
    )


class Start(Expectation):
    """When a job starts that waits."""

    latest_at: datetime | None = Field(description="Its guaranteed latest start, if it has one.")


class End(Expectation):
    """When a job ends that runs."""

    latest_at: datetime | None = Field(description="When its limit ends it, if it has one.")
    basis: Literal["progress", "history", "durations", "grace"] | None = Field(
        description="What that is known from: its own steps, jobs of the same name, all jobs that "
        "have ended, or the grace it has to stop in. null when it is not known."
    )


class Option(BaseModel):
    """A change with which the job would start sooner; simulated."""

    change: dict[str, Any] = Field(
        description="A JSON merge patch of the spec.", examples=[{"workers": 2}]
    )
    start_at: datetime = Field(description="When it would then start, as likely before as after.")
    sooner_seconds: float | None = Field(
        description="How much sooner; null where it is not known when it starts as it is.",
        examples=[5400.0],
    )
    resizable: bool = Field(
        description="Whether a job with `elastic` gets it by `POST /v1/jobs/{id}/resize`."
    )


class Step(BaseModel):
    """Something to do about it."""

    text: str = Field(examples=["let it go on from its checkpoint"])
    command: str | None = Field(
        description="The same on the command line.", examples=[f"trainmaster resume {_JOB_ID}"]
    )


class Shares(BaseModel):
    """Which part of the last stretch of its time a rank spent on what; they add up to about 1."""

    data_wait: float = Field(description="Waiting for the next batch.")
    compute: float
    communication: float = Field(description="Standing still for other ranks, and for bytes.")
    checkpoint: float = Field(description="Standing still for a checkpoint.")
    idle: float = Field(description="Outside of the training loop.")


class RankNow(BaseModel):
    """One rank of a job that runs, as its supervisor saw it last."""

    rank: int
    node: str = Field(examples=["gpu-01"])
    state: str = Field(examples=["running"])
    step: int | None
    phase: str | None = Field(
        description="What it was doing: one of the names in `shares`.", examples=["data_wait"]
    )
    window_seconds: float | None = Field(description="What `shares` are of, a minute at most.")
    shares: Shares | None = Field(description="null where the script does not measure.")
    memory_peak_bytes: int | None = Field(description="The most it has held on its machine.")
    gpu_memory_peak_bytes: int | None = Field(description="The most torch has held on its GPU.")
    restarts: int = Field(description="How often it was killed and started again in this attempt.")


class Ranks(BaseModel):
    """What the ranks of a job that runs do with their time."""

    message: str | None = Field(
        description="Which rank is slow and why, or what they all spend their time on.",
        examples=["rank 3 is slow: it waits for data for 41 % of its time, the others for 2 %; …"],
    )
    slow_rank: int | None = Field(description="Whom the others wait for.")
    cause: str | None = Field(
        description="The phase in which the time is lost.", examples=["data_wait"]
    )
    ranks: list[RankNow] = Field(description="By rank, the first 256.")


class Explanation(BaseModel):
    """Why a job is where it is, what comes next, and what can be done."""

    object: Literal["explanation"] = "explanation"
    job_id: str = Field(examples=[_JOB_ID])
    project: str = Field(examples=["default"])
    state: JobState
    reason: str = Field(
        description="What stands in its way most, or why it is in its state; see the docs.",
        examples=["HigherPriorityAhead"],
    )
    message: str = Field(description="The same in words, with the numbers; may be empty.")
    asked_at: datetime
    numbers: dict[str, int] = Field(
        description="What stands against what: `needed_gpus`, `free_workers`, `limit_gpus` …",
        examples=[{"needed_workers": 8, "free_workers": 6, "free_workers_on_one_node": 3}],
    )
    ahead: Ahead | None = Field(description="Of a job that waits in line.")
    start: Start | None = Field(description="Of a job that waits.")
    end: End | None = Field(description="Of a job that holds its places.")
    ranks: Ranks | None = Field(description="Of a job that runs.")
    options: list[Option] = Field(description="What would let it start sooner.")
    options_complete: bool = Field(description="Whether there was time to try all changes.")
    next: list[Step] = Field(description="What to do, the likeliest first.")


class Communication(BaseModel):
    """What one step of a job of several ranks sends, and how long it takes."""

    backend: Literal["gloo", "nccl"] = Field(description="Of torch, within a replica.")
    num_parameters: int | None = Field(default=None, examples=[1_853_952])
    bytes_per_step: float | None = Field(
        default=None,
        description="What leaves a rank, mean over the ranks, without headers.",
        examples=[7_415_808.0],
    )
    bytes_per_step_by_phase: dict[str, float] = Field(
        default_factory=dict,
        description="`gradients`, `parameters`, `activations`, `buffers`, `outer`.",
        examples=[{"gradients": 7_415_808.0}],
    )
    wire_bytes_per_step: float | None = Field(
        default=None, description="The same with the headers of TCP/IP."
    )
    reduction_vs_ddp: float | None = Field(
        default=None,
        description="What data parallel training in 32 bits would send, over this; null where "
        "all ranks take the same samples, so that there is nothing to compare.",
        examples=[396.9],
    )
    transfer_seconds: float | None = Field(
        default=None, description="How long that takes on the busiest link; needs `link_mbit`."
    )
    compute_seconds: float | None = Field(
        default=None, description="What a step took, less its waits, of the last job like this."
    )
    step_seconds: float | None = Field(
        default=None, description="Both, less what goes on at the same time."
    )
    missing: list[str] = Field(
        default_factory=list, description="What would have to be known for what is null."
    )


class Simulation(BaseModel):
    """What would become of a spec if it were submitted now; it was not."""

    object: Literal["simulation"] = "simulation"
    would_be_accepted: bool
    errors: list[ErrorItem] = Field(description="Everything that is wrong with it, at once.")
    job_id: None = None
    project: str | None = Field(description="null when it would be refused.", examples=["default"])
    state: JobState | None = Field(description="Where it would wait; null when refused.")
    reason: str | None = Field(examples=["WaitingForPlacement"])
    message: str
    asked_at: datetime
    numbers: dict[str, int]
    ahead: Ahead | None
    start: Start | None
    end: None = None
    options: list[Option]
    options_complete: bool
    next: list[Step]
    communication: Communication | None = Field(
        description="What its ranks would send each other; null where there is one rank, or when "
        "it would be refused."
    )
    spec: Annotated[dict[str, Any] | None, Field(description="With every default filled in.")]
