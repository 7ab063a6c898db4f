"""Queues as they go over the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class Queue(BaseModel):
    """Where jobs wait for room."""

    object: Literal["queue"] = "queue"
    name: str = Field(examples=["default"])
    num_waiting: int = Field(description="Jobs that may start as soon as there is room.")
    num_pending: int = Field(description="Jobs that something else holds back.")
    num_active: int = Field(description="Jobs that hold room.")


class QueueList(ListEnvelope[Queue]):
    """All queues."""
