"""Verifications as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.checkpoints.schemas import MetricValue
from api.jobs.schemas import StoredSpec, Verdict
from api.pages import ListEnvelope

_VERIFICATION_ID = "ver_01kasy0e5xq5b2p0v3m8n7r4tz"


class FinalCheckpoint(BaseModel):
    """What one of the two jobs has ended with."""

    checkpoint_id: str
    step: int


class ComparedFile(BaseModel):
    """One file of the two final checkpoints; null where a checkpoint lacks it."""

    path: str = Field(examples=["model.safetensors"])
    reference_sha256: str | None
    interrupted_sha256: str | None
    is_same: bool = Field(description="Whether both hold the same state.")


class ComparedMetric(BaseModel):
    """One metric of the two final checkpoints."""

    name: str = Field(examples=["val/accuracy"])
    reference: MetricValue
    interrupted: MetricValue
    is_near: bool = Field(description="Whether they differ by no more than the tolerance.")


class Comparison(BaseModel):
    """What was compared."""

    reference: FinalCheckpoint
    interrupted: FinalCheckpoint
    killed_at_step: int | None = Field(description="How far the first attempt had come.")
    resumed_from_step: int | None = Field(description="Where the last attempt went on.")
    num_files: int
    num_files_same: int
    files: list[ComparedFile] = Field(description="At most 100, those that differ first.")
    metrics: list[ComparedMetric]


class PlannedInterruption(BaseModel):
    """Where the interrupted job saves, and where its ranks are killed."""

    save_at_step: int
    kill_at_step: int


class ResumeVerification(BaseModel):
    """A training that is run twice, once without and once with a kill, and compared."""

    id: str = Field(examples=[_VERIFICATION_ID])
    object: Literal["verification"] = "verification"
    project: str
    name: str
    state: Literal["reference", "interrupted", "finished"] = Field(
        description="Which of the two jobs is due, or that the verdict is there."
    )
    verdict: Verdict | None = Field(description="Null until it is finished.")
    reason: str | None = Field(description="Why; see the docs.", examples=["SameFiles"])
    message: str
    reference_job_id: str
    interrupted_job_id: str | None = Field(
        description="Submitted once the reference has succeeded."
    )
    interruption: PlannedInterruption | None
    comparison: Comparison | None = Field(description="Null where nothing could be compared.")
    seed: int = Field(description="Decides where is killed.")
    tolerance: float = Field(description="How far metrics may differ, relative to the larger.")
    subject_sha256: str = Field(description="Of what decides how a job resumes.")
    spec: StoredSpec
    version: int = Field(description="Grows with every change.")
    created_at: datetime
    finished_at: datetime | None


class ResumeVerificationList(ListEnvelope[ResumeVerification]):
    """One page of verifications."""
