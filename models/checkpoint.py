"""Checkpoints and the files in them. A checkpoint is listed only once it is committed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Enum, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, new_id


class CheckpointState(StrEnum):
    """How far a checkpoint is; `deleting` is the mark that precedes the loss of its bytes."""

    UPLOADING = "uploading"
    COMMITTED = "committed"
    CORRUPT = "corrupt"
    DELETING = "deleting"


class Checkpoint(Base):
    """A point from which a job can go on.

    Attributes:
        name: the supervisor's name for it, unique in the attempt: a retried commit finds it.
        metrics: what the job said of it, such as {"val/accuracy": 0.97}.
    """

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("ckpt"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(128))
    step: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]]
    state: Mapped[CheckpointState] = mapped_column(
        Enum(
            CheckpointState,
            native_enum=False,
            length=16,
            values_callable=lambda kind: [state.value for state in kind],
            create_constraint=True,
            name="state",
        )
    )
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    is_pinned: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    committed_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]

    __table_args__ = (Index("uq_checkpoints_attempt_id_name", "attempt_id", "name", unique=True),)


class CheckpointFile(Base):
    """One file of a checkpoint, as the manifest has it."""

    __tablename__ = "checkpoint_files"

    checkpoint_id: Mapped[str] = mapped_column(
        ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
