"""Pools as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.nodes.schemas import Room
from api.pages import ListEnvelope


class Pool(BaseModel):
    """A set of machines among which a job may be placed."""

    object: Literal["pool"] = "pool"
    name: str = Field(examples=["default"])
    num_nodes: int = Field(description="That have joined.")
    num_nodes_ready: int = Field(description="Of these, those that take new work.")
    capacity: Room = Field(description="Of the nodes that take new work.")
    free: Room
    created_at: datetime


class PoolList(ListEnvelope[Pool]):
    """One page of pools."""
