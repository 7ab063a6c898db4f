"""Events as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class Event(BaseModel):
    """One thing that happened to a job."""

    object: Literal["event"] = "event"
    job_id: str = Field(examples=["job_01kasy0e5xq5b2p0v3m8n7r4tz"])
    seq: int = Field(description="1, 2, 3 … for each job, without a gap.", examples=[3])
    type: str = Field(description="`job.<state>`, or what happened.", examples=["job.running"])
    state: str = Field(description="The job's state from here on.", examples=["running"])
    reason: str = Field(examples=["Training"])
    message: str
    data: dict[str, Any] = Field(description="Depends on the type.")
    created_at: datetime


class EventList(ListEnvelope[Event]):
    """One page of events, oldest first."""
