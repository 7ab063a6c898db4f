"""Nodes as their users and operators see them; daemons have their own, in `schemas_worker`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class NodeState(StrEnum):
    """Whether a node takes new work, and why not."""

    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    SILENT = "silent"


class Room(BaseModel):
    """What workers can take."""

    gpus: int = Field(examples=[0])
    cpus: float = Field(examples=[2.0])
    memory_gib: float = Field(examples=[23.4])


class Gpu(BaseModel):
    """One GPU of a node."""

    index: int
    uuid: str
    model: str
    memory_gib: float


class Node(BaseModel):
    """One machine with a daemon."""

    id: str = Field(examples=["node_01kasy0e5xq5b2p0v3m8n7r4tz"])
    object: Literal["node"] = "node"
    name: str = Field(examples=["box1"])
    pool: str = Field(examples=["default"])
    state: NodeState
    address: str | None
    version: str | None = Field(description="Of its daemon.")
    capacity: Room
    free: Room
    gpus: list[Gpu]
    num_attempts: int = Field(description="Attempts that hold room on it.")
    created_at: datetime
    heartbeat_at: datetime | None


class NodeList(ListEnvelope[Node]):
    """One page of nodes."""
