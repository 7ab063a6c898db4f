"""Jobs: one row each, changed only by compare-and-set on `version`.

Every version has one row in `events` with the same number, so the history is gap-free and the row
can be recomputed from it. Progress changes too often for that and lives with the attempt.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import ID_LENGTH, Base, Id, Name, Serial, new_id
from scheduler.core.states import TERMINAL_STATES, JobState

_SUCCEEDED = text("state = 'succeeded'")


class Job(Base):
    """One request to train.

    Attributes:
        epoch: raised with every attempt; the fencing token of all that attempts write.
        num_workers: of the live attempt, or else of the next one.
        resize_to: workers that it has from the end of its live attempt on; None: as many.
        resize_resume_sha256: the `resume_sha256` that it has then.
        request_gpus, request_cpu_milli, request_memory_mib: per worker; None: the pool decides.
        request_gpu_models: any of these; None: any model.
        request_gpu_memory_mib: each GPU has at least this much.
        may_spread: the gang may be split over nodes even where one could hold it.
        not_before_at, not_before_reason: earliest start and what it is (begin_at, back-off).
        stop_reason: why the live attempt was asked to stop, None when it was not.
        checkpoint_serial: how often a checkpoint has been asked for.
        evictions: how often it was preempted or moved.
        served_ms: wall time of all ended attempts, from claiming slots to giving them back.
        gpu_ms: GPUs held x that time.
        deadline_served_ms: how long attempts ran that the service cut short since the last one
            that ended otherwise; counts towards `limits.wall_seconds`.
        waiting_since_at: since when nothing but a lack of room has kept it; None before that.
        claim: {"shares": [{"node_id", "num_workers", "gpu_indices"}], "until_ms"}: places that are
            kept for it.
        reservation: {"start_ms", "node_ids"}: the latest start that was promised.
        resume_sha256: of what decides how it resumes; a verification of the same speaks for it.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("job"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    recipe: Mapped[str | None] = mapped_column(Name)
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
    resize_to: Mapped[int | None]
    resize_resume_sha256: Mapped[str | None] = mapped_column(String(64))
    request_gpus: Mapped[int | None]
    request_cpu_milli: Mapped[int | None]
    request_memory_mib: Mapped[int | None]
    request_gpu_models: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    request_gpu_memory_mib: Mapped[int | None]
    may_spread: Mapped[bool] = mapped_column(default=False)
    is_held: Mapped[bool] = mapped_column(default=False)
    not_before_at: Mapped[datetime | None]
    not_before_reason: Mapped[str | None] = mapped_column(String(64))
    stop_reason: Mapped[str | None] = mapped_column(String(64))
    checkpoint_serial: Mapped[int] = mapped_column(default=0)
    user_failures: Mapped[int] = mapped_column(default=0)
    infra_failures: Mapped[int] = mapped_column(default=0)
    num_attempts: Mapped[int] = mapped_column(default=0)
    evictions: Mapped[int] = mapped_column(default=0)
    served_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    gpu_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    deadline_served_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    waiting_since_at: Mapped[datetime | None]
    claim: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    reservation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    resume_sha256: Mapped[str | None] = mapped_column(String(64))
    parent_job_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_by: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_state_id", "state", "id"),
        # How long jobs like this one took: only those that ended well, newest last.
        Index(
            "ix_jobs_succeeded",
            "project_id",
            "name",
            "finished_at",
            sqlite_where=_SUCCEEDED,
            postgresql_where=_SUCCEEDED,
        ),
    )
    # The caller raises `version` together with the event row; a flush then checks the old one.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  read by SQLAlchemy

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to this job any more."""
        return self.state in TERMINAL_STATES


class JobDependency(Base):
    """A job that starts only once another one has succeeded."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    depends_on_job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True
    )


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
