"""Quotas as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.spec_schema import Document, Identifier, Name, Priority
from api.pages import ListEnvelope

Weight = Annotated[int, Field(ge=1, le=1_000_000)]
Gpus = Annotated[int, Field(ge=0, le=1_000_000)]
GpuHours = Annotated[float, Field(ge=0, le=1_000_000_000)]


class QuotaUse(BaseModel):
    """What is used of a quota now."""

    gpus: int = Field(description="Held by running jobs.", examples=[8])
    gpu_hours_this_month: float = Field(
        description="In the present month (UTC), those of running jobs included.", examples=[41.5]
    )


class Quota(BaseModel):
    """What a project, or one user of it, is entitled to and may use at most."""

    id: str = Field(examples=["quo_01kasy0e5xq5b2p0v3m8n7r4tz"])
    object: Literal["quota"] = "quota"
    project: str = Field(description="Name of the project.", examples=["vision"])
    user: str | None = Field(
        description="Id of a key of the project; null: the project as a whole.", examples=[None]
    )
    weight: int = Field(description="Of its share among its siblings.", examples=[1])
    guaranteed_gpus: int = Field(
        description="Up to here it goes first and makes no room for borrowers.", examples=[8]
    )
    limit_gpus: int | None = Field(description="Never more at once; null: no limit.")
    may_borrow: bool = Field(
        description="Whether it may use more than is guaranteed while others do not need it."
    )
    gpu_hours_per_month: float | None = Field(description="Null: no budget.", examples=[500.0])
    priority_max: int = Field(description="What its jobs may ask for at most.", examples=[100])
    in_use: QuotaUse
    version: int = Field(description="Grows by one with every change.", examples=[1])
    created_at: datetime
    updated_at: datetime


class QuotaList(ListEnvelope[Quota]):
    """One page of quotas."""


class QuotaRequest(Document):
    """A quota to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"project": "vision", "guaranteed_gpus": 8, "gpu_hours_per_month": 500}]
        }
    )

    project: Annotated[Name, Field(description="Name of the project.")]
    user: Annotated[
        Identifier | None,
        Field(description="Id of a key of the project; null: the project as a whole."),
    ] = None
    weight: Weight = 1
    guaranteed_gpus: Gpus = 0
    limit_gpus: Gpus | None = None
    may_borrow: bool = True
    gpu_hours_per_month: GpuHours | None = None
    priority_max: Priority = 100


class QuotaPatch(Document):
    """A JSON merge patch: what is left out stays, `null` takes a limit away."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"gpu_hours_per_month": 750}]})

    # The defaults are never seen: only what was given is looked at.
    weight: Weight = Field(default_factory=int)
    guaranteed_gpus: Gpus = Field(default_factory=int)
    limit_gpus: Gpus | None = None
    may_borrow: bool = Field(default_factory=bool)
    gpu_hours_per_month: GpuHours | None = None
    priority_max: Priority = Field(default_factory=int)
