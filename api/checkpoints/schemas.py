"""Checkpoints as documents: what supervisors send, what users get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api import shapes
from api.attempts.schemas import Step, Strict
from api.jobs.spec_schema import Document
from api.pages import ListEnvelope

MetricName = Annotated[str, Field(min_length=1, max_length=128)]
MetricValue = float | Literal["NaN", "Infinity", "-Infinity"]


class FileIn(Strict):
    """One file of a manifest."""

    path: Annotated[str, Field(max_length=2048)]
    size_bytes: Annotated[int, Field(ge=0, le=2**62)]
    sha256: Annotated[str, Field(max_length=128)]


class CheckpointIn(Strict):
    """A checkpoint that is about to be uploaded."""

    name: Annotated[str, Field(pattern=shapes.PLAIN_NAME)]
    step: Step
    metrics: dict[MetricName, MetricValue] = Field(default_factory=dict, max_length=256)
    files: list[FileIn]


class Upload(BaseModel):
    """One file that is still missing, and where to PUT it."""

    path: str
    url: str


class CheckpointBegun(BaseModel):
    """What is still to be done for a checkpoint."""

    checkpoint_id: str
    state: str = Field(examples=["uploading", "committed"])
    uploads: list[Upload]


class CheckpointFileOut(BaseModel):
    """One file of a checkpoint."""

    path: str = Field(examples=["model.safetensors"])
    size_bytes: int
    sha256: str = Field(description="In hexadecimal.")
    url: str = Field(description="Path on this server; ranges are served.")


class CheckpointOut(BaseModel):
    """A point from which a job can go on; it exists as a whole."""

    object: Literal["checkpoint"] = "checkpoint"
    id: str = Field(examples=["ckpt_01k9x…"])
    job_id: str
    attempt_id: str
    attempt: int = Field(description="Number of the attempt that made it.", examples=[1])
    step: int
    metrics: dict[str, Any] = Field(description="What the job said of it.")
    state: str = Field(examples=["committed"])
    size_bytes: int
    pinned: bool = Field(description="Whether it is kept whatever the job's policy says.")
    files: list[CheckpointFileOut]
    archive_url: str = Field(description="All files as one tar.")
    created_at: datetime
    committed_at: datetime | None
    verified_at: datetime | None = Field(description="When its hashes were last checked.")


class CheckpointList(ListEnvelope[CheckpointOut]):
    """Checkpoints of a job, newest first."""


class Verification(BaseModel):
    """What hashing every file again has shown."""

    object: Literal["verification"] = "verification"
    intact: bool
    damaged_paths: list[str]
    num_files: int
    size_bytes: int
    state: str = Field(examples=["committed", "corrupt"])


class ExportRequest(Document):
    """How the weights are written."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"dtype": "bf16"}]})

    dtype: Annotated[
        Literal["keep", "fp32", "bf16", "fp16"],
        Field(description="What floating-point weights become; other tensors stay as they are."),
    ] = "keep"
