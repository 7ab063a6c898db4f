"""Nodes, pools, and the queues in front of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Name, Serial, new_id
from scheduler.core.resources import Resources


class Pool(Base):
    """A set of machines among which a job may be placed."""

    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    created_at: Mapped[datetime]


class Queue(Base):
    """A line in front of one pool. Every pool has one of its own name; there may be more.

    Attributes:
        is_open: a closed queue accepts jobs and starts none.
    """

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    pool: Mapped[str] = mapped_column(ForeignKey("pools.name"), index=True)
    is_open: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class Node(Base):
    """One machine with a daemon.

    Attributes:
        rack: machines of one rack are close to each other; None when nobody said.
        capacity: {"cpu_milli", "memory_mib", "gpus": [{"index", "uuid", "model", "memory_mib"}]}.
        cpu_milli_used, memory_mib_used: held by live attempts; never more than there is.
        heartbeat_at: when the daemon was last heard, None before the first time.
        quarantined_until: gets no new work before; None when its faults were few.
        quarantine_message: which faults, in words.
    """

    __tablename__ = "nodes"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("node"))
    name: Mapped[str] = mapped_column(Name, unique=True)
    pool: Mapped[str] = mapped_column(ForeignKey("pools.name"))
    rack: Mapped[str | None] = mapped_column(Name)
    credential_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    address: Mapped[str | None] = mapped_column(String(255))
    version: Mapped[str | None] = mapped_column(String(64))
    boot_id: Mapped[str | None] = mapped_column(String(64))
    capacity: Mapped[dict[str, Any] | None]
    cpu_milli_used: Mapped[int] = mapped_column(default=0)
    memory_mib_used: Mapped[int] = mapped_column(default=0)
    health: Mapped[dict[str, Any] | None]
    is_cordoned: Mapped[bool] = mapped_column(default=False)
    is_draining: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime | None]
    quarantined_until: Mapped[datetime | None]
    quarantine_message: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("cpu_milli_used >= 0", name="cpu_milli_used"),
        CheckConstraint("memory_mib_used >= 0", name="memory_mib_used"),
    )


class NodeFault(Base):
    """An attempt that ended on a node for a fault of machines; forgotten when it is uncordoned."""

    __tablename__ = "node_faults"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(Id)
    attempt_id: Mapped[str] = mapped_column(Id)
    reason: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]

    __table_args__ = (Index("ix_node_faults_node_id_at", "node_id", "at"),)


def read_capacity(capacity: Mapping[str, Any] | None) -> Resources:
    """Return what a node said that it has; nothing when it has not said yet."""
    if capacity is None:
        return Resources()
    return Resources(
        num_gpus=len(capacity["gpus"]),
        cpu_milli=capacity["cpu_milli"],
        memory_mib=capacity["memory_mib"],
    )


def read_gpu_kind(capacity: Mapping[str, Any] | None) -> tuple[str, int]:
    """Return the model of a node's GPUs, and the memory in MiB of the smallest; "" and 0 without.

    A node with several models has none that a job could ask for.
    """
    gpus = capacity["gpus"] if capacity is not None else []
    models = {str(gpu.get("model") or "") for gpu in gpus}
    memory_mib = min((int(gpu.get("memory_mib") or 0) for gpu in gpus), default=0)
    return models.pop() if len(models) == 1 else "", memory_mib


class Lease(Base):
    """Who leads: one row per role, with a term that grows with every change of holder."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    term: Mapped[int]
    expires_at: Mapped[datetime]
