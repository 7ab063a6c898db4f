"""Attempts as users see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class AttemptNodeOut(BaseModel):
    """The part of an attempt that runs, or ran, on one node."""

    node_id: str
    name: str = Field(examples=["gpu-01"])
    node_rank: int
    ranks: list[int]
    gpu_indices: list[int]
    phase: str = Field(examples=["running", "exited"])
    outcome: str | None = Field(examples=["succeeded", "failed", "stopped", "lost"])
    exit: dict[str, Any] | None = Field(
        description="The exit record: reason, message, and how each rank ended."
    )
    exited_at: datetime | None


class AttemptOut(BaseModel):
    """One execution of a job on one placement."""

    object: Literal["attempt"] = "attempt"
    id: str = Field(examples=["att_01k9x…"])
    job_id: str
    number: int = Field(description="1 for the first attempt of the job.")
    state: str = Field(examples=["launching", "running", "draining", "exited", "lost"])
    reason: str | None
    message: str | None
    nodes: list[AttemptNodeOut]
    progress: dict[str, Any] | None = Field(description="step, total_steps, steps_per_second.")
    resumed_from: str | None = Field(description="The checkpoint that it started from.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class AttemptList(ListEnvelope[AttemptOut]):
    """Attempts of a job, oldest first."""
