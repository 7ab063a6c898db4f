"""Queues as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api import shapes
from api.jobs.spec_schema import Document, Name
from api.pages import ListEnvelope

QueueName = Annotated[str, StringConstraints(pattern=shapes.PLAIN_NAME)]


class Queue(BaseModel):
    """A line in front of one pool."""

    object: Literal["queue"] = "queue"
    name: str = Field(examples=["default"])
    pool: str = Field(description="Where its jobs run.", examples=["default"])
    open: bool = Field(description="A closed queue accepts jobs and starts none.")
    num_waiting: int = Field(description="Jobs that may start as soon as there is room.")
    num_pending: int = Field(description="Jobs that something else holds back.")
    num_active: int = Field(description="Jobs that hold room.")
    created_at: datetime


class QueueList(ListEnvelope[Queue]):
    """One page of queues."""


class QueueRequest(Document):
    """A queue to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "night", "pool": "default", "open": False}]}
    )

    name: QueueName = Field(description="Unique.")
    pool: Annotated[Name, Field(description="Where its jobs run; it cannot be changed.")]
    open: Annotated[bool, Field(description="Whether its jobs may start.")] = True


class QueuePatch(Document):
    """A JSON merge patch of a queue."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"open": False}]})

    open: Annotated[bool, Field(description="Whether its jobs may start.")]
