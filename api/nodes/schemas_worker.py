"""What node daemons send and get, as documents. The words are those of the worker protocol."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from api import shapes
from api.attempts.schemas import Message, Strict

Epoch = Annotated[int, Field(ge=0, le=2**31 - 1)]
AttemptId = Annotated[str, Field(pattern=shapes.ATTEMPT_ID)]
Text = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(pattern=shapes.PLAIN_NAME)]


class NodeJoin(Strict):
    """A machine that joins, or joins again."""

    name: Name = Field(description="One name per machine.", examples=["gpu-01"])
    pool: Name = Field(default="default", description="The pool it belongs to.")


class NodeJoined(BaseModel):
    """What the daemon needs from now on."""

    id: str = Field(examples=["node_01k9x…"])
    name: str
    pool: str
    credential: str = Field(description="Shown once; the one before it is dead.")


class GpuIn(Strict):
    """One GPU of a node."""

    index: Annotated[int, Field(ge=0, le=1023)]
    uuid: Annotated[str, Field(max_length=128)]
    model: Annotated[str, Field(max_length=128)]
    memory_mib: Annotated[int, Field(ge=0, le=2**31 - 1)]


class CapacityIn(Strict):
    """What a node has for workers."""

    cpu_milli: Annotated[int, Field(ge=0, le=2**31 - 1)]
    memory_mib: Annotated[int, Field(ge=0, le=2**31 - 1)]
    gpus: list[GpuIn] = Field(default_factory=list, max_length=1024)


class SupervisedIn(Strict):
    """A supervisor that is alive on the node."""

    attempt_id: AttemptId
    epoch: Epoch


class EndedIn(SupervisedIn):
    """A supervisor that is provably gone, and has left no exit record."""

    reason: Annotated[str, Field(pattern=shapes.REASON)]
    message: Message = ""


class HeartbeatIn(Strict):
    """How a node is, and what runs on it."""

    boot_id: Text
    version: Text
    address: Annotated[str, Field(min_length=1, max_length=255)]
    capacity: CapacityIn
    supervisors: list[SupervisedIn] = Field(default_factory=list, max_length=4096)
    ended: list[EndedIn] = Field(default_factory=list, max_length=4096)
    health: dict[str, Any] = Field(default_factory=dict, max_length=64)


class AssignmentOut(BaseModel):
    """An attempt to start a supervisor for."""

    attempt_id: str
    epoch: int
    token: str


class StopOut(BaseModel):
    """A supervisor that is wanted down."""

    attempt_id: str
    epoch: int
    reason: str = Field(examples=["CancelRequested"])
    grace_seconds: float


class NudgeOut(BaseModel):
    """A supervisor that should renew its lease now."""

    attempt_id: str


class HeartbeatOut(BaseModel):
    """What is wanted of the node."""

    assignments: list[AssignmentOut]
    stops: list[StopOut]
    nudges: list[NudgeOut]
    interval_seconds: float
