"""Jobs: one row each, changed only by compare-and-set on `version`.

Every version has one row in `events` with the same number, so the history is gap-free and the row
can be recomputed from it. Progress changes too often for that and lives with the attempt.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Enum, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import ID_LENGTH, Base, Id, Name, Serial, new_id
from scheduler.core.states import TERMINAL_STATES, JobState


class Job(Base):
    """One request to train.

    Attributes:
        epoch: raised with every attempt; the fencing token of all that attempts write.
        request_gpus, request_cpu_milli, request_memory_mib: per worker; None: the pool decides.
        not_before_at, not_before_reason: earliest start and what it is (begin_at, back-off).
        stop_reason: why the live attempt was asked to stop, None when it was not.
        checkpoint_serial: how often a checkpoint has been asked for.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("job"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    labels: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    spec_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[JobState] = mapped_column(
        Enum(
            JobState,
            native_enum=False,
            length=16,
            values_callable=lambda kind: [state.value for state in kind],
            create_constraint=True,
            name="state",
        )
    )
    reason: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text, default="")
    state_changed_at: Mapped[datetime]
    version: Mapped[int] = mapped_column()
    epoch: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int]
    queue: Mapped[str] = mapped_column(Name)
    pool: Mapped[str] = mapped_column(Name)
    num_workers: Mapped[int]
    request_gpus: Mapped[int | None]
    request_cpu_milli: Mapped[int | None]
    request_memory_mib: Mapped[int | None]
    is_held: Mapped[bool] = mapped_column(default=False)
    not_before_at: Mapped[datetime | None]
    not_before_reason: Mapped[str | None] = mapped_column(String(64))
    stop_reason: Mapped[str | None] = mapped_column(String(64))
    checkpoint_serial: Mapped[int] = mapped_column(default=0)
    user_failures: Mapped[int] = mapped_column(default=0)
    infra_failures: Mapped[int] = mapped_column(default=0)
    num_attempts: Mapped[int] = mapped_column(default=0)
    parent_job_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_by: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_state_id", "state", "id"),
    )
    # The caller raises `version` together with the event row; a flush then checks the old one.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  read by SQLAlchemy

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to this job any more."""
        return self.state in TERMINAL_STATES


class Event(Base):
    """One thing that happened to a job; never changed, never removed while the job exists.

    Attributes:
        seq: the version that the job had from here on; 1, 2, 3 … without a gap.
        type: `job.<state>` for a change of state, else what happened (`job.edited`, …).
    """

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int]
    type: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (Index("uq_events_job_id_seq", "job_id", "seq", unique=True),)
