"""Machines and queues, and who may use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster.documents.values import Resource, empty, instant, nested


@dataclass(frozen=True, kw_only=True)
class Room(Resource):
    """What workers can take on a node or in a pool."""

    gpus: int = 0
    cpus: float = 0.0
    memory_gib: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quarantine(Resource):
    """Why a node that keeps failing gets no new work for a while."""

    until: datetime | None = instant()
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Node(Resource):
    """A machine that runs workers. `state` says whether it takes new work."""

    id: str
    name: str = ""
    pool: str = ""
    rack: str | None = None
    state: str = ""
    quarantine: Quarantine | None = nested(Quarantine)
    capacity: Room | None = nested(Room)
    free: Room | None = nested(Room)
    gpus: list[Mapping[str, Any]] = empty(list)
    num_attempts: int = 0
    created_at: datetime | None = instant()
    heartbeat_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class Pool(Resource):
    """A set of machines that jobs are placed on; its name is its id."""

    name: str
    num_nodes: int = 0
    num_nodes_ready: int = 0
    capacity: Room | None = nested(Room)
    free: Room | None = nested(Room)
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class Queue(Resource):
    """A line in front of one pool; its name is its id. A closed one starts no jobs."""

    name: str
    pool: str = ""
    open: bool = True
    num_waiting: int = 0
    num_pending: int = 0
    num_active: int = 0
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class QuotaUse(Resource):
    """What is used of a quota now."""

    gpus: int = 0
    gpu_hours_this_month: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quota(Resource):
    """What a project, or one user of it (a key's id), is entitled to and may use at most."""

    id: str
    project: str = ""
    user: str | None = None
    weight: int = 1
    guaranteed_gpus: int = 0
    limit_gpus: int | None = None
    may_borrow: bool = True
    gpu_hours_per_month: float | None = None
    priority_max: int = 100
    in_use: QuotaUse | None = nested(QuotaUse)
    version: int = 0
    created_at: datetime | None = instant()
    updated_at: datetime | None = instant()

    @property
    def etag(self) -> str:
        """Names the version that was read."""
        return f'"{self.version}"'


@dataclass(frozen=True, kw_only=True)
class Usage(Resource):
    """What one user of a project has used in a month, and what that means for its turn."""

    project: str
    user: str | None = None
    user_name: str | None = None
    month: str = ""
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    num_attempts: int = 0
    gpus_in_use: int = 0
    recent_gpu_hours: float = 0.0
    recent_share: float = 0.0
    fair_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe(Resource):
    """A built-in trainer; its name is its id. `config` is a JSON Schema, `example` a spec."""

    name: str
    title: str = ""
    description: str = ""
    config: Mapping[str, Any] = empty(dict)
    inputs: Mapping[str, Any] = empty(dict)
    metrics: list[Mapping[str, Any]] = empty(list)
    example: Mapping[str, Any] = empty(dict)


@dataclass(frozen=True, kw_only=True)
class Project(Resource):
    """What jobs and keys belong to."""

    id: str
    name: str = ""
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class Key(Resource):
    """An API key. `key`, the secret, is there once: in the answer that makes it."""

    id: str
    name: str = ""
    role: str = ""
    project: str = ""
    last4: str = ""
    created_at: datetime | None = instant()
    expires_at: datetime | None = instant()
    revoked_at: datetime | None = instant()
    key: str | None = field(default=None, repr=False)
