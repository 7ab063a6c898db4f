"""What supervisors send and get, as documents. The words are those of the worker protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api import shapes

STEP_MAX = 2**63 - 1

Step = Annotated[int, Field(ge=0, le=STEP_MAX)]
Rank = Annotated[int, Field(ge=0, le=999_999)]
Message = Annotated[str, Field(max_length=16_384)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Bytes = Annotated[int, Field(ge=0, le=2**53)]
Phase = Literal["data_wait", "compute", "communication", "checkpoint", "idle"]


class Strict(BaseModel):
    """A document of the worker protocol: exact types, no unknown members."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProgressIn(Strict):
    """How far the training is."""

    step: Step
    total_steps: Step | None = None
    steps_per_second: Annotated[float, Field(ge=0, le=1e12)] | None = None


class RankTimesIn(Strict):
    """What a rank did with the last stretch of its time, in seconds."""

    window: Seconds
    data_wait: Seconds
    compute: Seconds
    communication: Seconds
    checkpoint: Seconds
    idle: Seconds


class RankIn(Strict):
    """One rank as its supervisor sees it."""

    rank: Rank
    pid: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    state: Literal["starting", "running", "exited"]
    step: Step | None = None
    phase: Phase | None = None
    times: RankTimesIn | None = None
    memory_peak_bytes: Bytes | None = None
    gpu_memory_peak_bytes: Bytes | None = None
    restarts: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class Rendezvous(Strict):
    """Where the ranks of all nodes meet."""

    address: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65_535)]


class LeaseIn(Strict):
    """How the attempt goes on this node."""

    phase: Literal["staging", "starting", "running", "stopping", "finalizing"]
    message: Message | None = None
    progress: ProgressIn | None = None
    ranks: list[RankIn] = Field(default_factory=list, max_length=1024)
    rendezvous: Rendezvous | None = None


class WantedOut(BaseModel):
    """What the supervisor shall do."""

    action: Literal["run", "checkpoint", "stop"]
    reason: str | None = Field(description="Why to stop.", examples=["PauseRequested"])
    grace_seconds: float = Field(description="How long the ranks have to stop by themselves.")
    serial: int = Field(description="Counts checkpoint requests: a new number is a new wish.")


class LeaseOut(BaseModel):
    """The renewed lease."""

    lease_seconds: float
    token: str = Field(description="Use it from now on.")
    wanted: WantedOut
    rendezvous: Rendezvous | None


class RankExitIn(Strict):
    """How one rank ended."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, populate_by_name=True, serialize_by_alias=True
    )

    rank: Rank
    code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    signal: Annotated[int, Field(ge=0, le=255)] | None = None
    kind: Literal["ok", "user", "infra", "stopped"] = Field(alias="class")
    last_step: Step | None = None


class ExitIn(Strict):
    """How the attempt ended on this node."""

    outcome: Literal["succeeded", "failed", "stopped", "lost"]
    reason: Annotated[str, Field(pattern=shapes.REASON)] | None = None
    message: Message | None = None
    ranks: list[RankExitIn] = Field(default_factory=list, max_length=1024)


class ExitOut(BaseModel):
    """The report is kept."""

    accepted: Literal[True]
    job_state: str = Field(examples=["succeeded"])


class AssignedRank(BaseModel):
    """One rank that this node runs."""

    rank: int
    local_rank: int
    gpu_indices: list[int]


class AssignedNode(BaseModel):
    """One node of the gang."""

    node_rank: int
    address: str
    ranks: list[int]


class Command(BaseModel):
    """What the ranks run: a script of the bundle, or a module."""

    kind: Literal["script", "module"]
    path: str | None = None
    module: str | None = None
    args: list[str]


class AssignedFile(BaseModel):
    """Bytes to fetch with the attempt token."""

    url: str
    size_bytes: int
    sha256: str
    filename: str


class AssignedInput(BaseModel):
    """One input: a file to fetch, or a directory that the node has."""

    name: str
    kind: Literal["file", "dir"]
    url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    filename: str | None = None
    path: str | None = None


class AssignedEnvironment(BaseModel):
    """The Python environment; empty means the default one."""

    python: str | None
    requirements: list[str]


class ResumeFile(BaseModel):
    """One file of the checkpoint to go on from."""

    path: str
    size_bytes: int
    sha256: str
    url: str


class Resume(BaseModel):
    """The checkpoint to go on from."""

    checkpoint_id: str
    step: int
    files: list[ResumeFile]


class AssignedTimers(BaseModel):
    """The clocks of the protocol, in seconds."""

    heartbeat_seconds: float
    lease_seconds: float
    fence_seconds: float
    grace_seconds: float


class Interruption(BaseModel):
    """Where the ranks die on purpose, so that their job can be seen resuming."""

    save_at_step: int
    kill_at_step: int


class Assignment(BaseModel):
    """Everything that one node needs to run its part of an attempt."""

    attempt_id: str
    job_id: str
    job_name: str
    project: str
    number: int
    epoch: int
    node_id: str
    spec: dict[str, Any]
    world_size: int
    node_rank: int
    num_nodes: int
    ranks: list[AssignedRank]
    cluster: list[AssignedNode]
    rendezvous: Rendezvous | None
    command: Command
    code: AssignedFile | None
    inputs: list[AssignedInput]
    environment: AssignedEnvironment
    env: dict[str, str]
    secrets: dict[str, str]
    resume: Resume | None
    interruption: Interruption | None
    timers: AssignedTimers
