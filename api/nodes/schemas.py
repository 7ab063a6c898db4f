"""Nodes as their users and operators see them; daemons have their own, in `schemas_worker`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.spec_schema import Document, Name
from api.pages import ListEnvelope


class NodeState(StrEnum):
    """Whether a node takes new work, and why not."""

    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    SILENT = "silent"
    QUARANTINED = "quarantined"


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


class Quarantine(BaseModel):
    """Why a node that keeps failing gets no new work for a while."""

    until: datetime
    message: str = Field(description="Which failures, and what to do.")


class Node(BaseModel):
    """One machine with a daemon."""

    id: str = Field(examples=["node_01kasy0e5xq5b2p0v3m8n7r4tz"])
    object: Literal["node"] = "node"
    name: str = Field(examples=["box1"])
    pool: str = Field(examples=["default"])
    rack: str | None = Field(
        description="Machines of one rack are close to each other.", examples=["r1"]
    )
    state: NodeState
    quarantine: Quarantine | None = Field(description="Null unless it is in one.")
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


class NodePatch(Document):
    """A JSON merge patch of a node."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rack": "r1"}]})

    rack: Annotated[Name | None, Field(description="Machines of one rack are close to each other.")]
