"""Attempts, the nodes they run on, and the slots they hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Enum, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, new_id
from scheduler.core.states import AttemptState

_LIVE = text("ended_at IS NULL")
_OPEN = text("exited_at IS NULL")
_HELD = text("gpu_index IS NOT NULL")


class Attempt(Base):
    """One execution of a job on one placement. At most one per job is live.

    Attributes:
        epoch: the job's epoch when it was made; a write with another one is stale.
        progress: {"step", "total_steps", "steps_per_second"} as last heard.
        resume_checkpoint_id: where it starts from.
    """

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("att"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    epoch: Mapped[int]
    state: Mapped[AttemptState] = mapped_column(
        Enum(
            AttemptState,
            native_enum=False,
            length=16,
            values_callable=lambda kind: [state.value for state in kind],
            create_constraint=True,
            name="state",
        )
    )
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    rendezvous: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    resume_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("uq_attempts_job_id_number", "job_id", "number", unique=True),
        Index(
            "uq_attempts_live", "job_id", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE
        ),
    )


class AttemptNode(Base):
    """The part of an attempt that runs on one node, kept alive by its supervisor's lease.

    Attributes:
        ranks: [{"rank", "local_rank", "gpu_indices"}] of this node.
        workers: what the supervisor said of its ranks with the last lease.
        outcome: succeeded, failed, stopped or lost, once the supervisor has reported.
        exit: the exit record as it was reported.
    """

    __tablename__ = "attempt_nodes"

    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    node_rank: Mapped[int]
    ranks: Mapped[list[Any]]
    phase: Mapped[str] = mapped_column(String(16), default="assigned")
    workers: Mapped[list[Any] | None]
    lease_expires_at: Mapped[datetime]
    outcome: Mapped[str | None] = mapped_column(String(16))
    exit: Mapped[dict[str, Any] | None]
    exited_at: Mapped[datetime | None]

    # Heartbeats ask for what a node still runs; what it has run grows without end.
    __table_args__ = (
        Index("ix_attempt_nodes_open", "node_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )


class Allocation(Base):
    """Slots of one node that a live attempt holds; the row goes when they are free again."""

    __tablename__ = "allocations"

    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), index=True
    )
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"))
    gpu_index: Mapped[int | None]  # one row per GPU, and one without for CPUs and memory
    cpu_milli: Mapped[int] = mapped_column(default=0)
    memory_mib: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        Index(
            "uq_allocations_gpu",
            "node_id",
            "gpu_index",
            unique=True,
            sqlite_where=_HELD,
            postgresql_where=_HELD,
        ),
    )
