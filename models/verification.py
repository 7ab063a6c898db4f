"""Verifications of resume: what was asked, the two jobs that answer it, and what they showed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Name, new_id

_OPEN = text("finished_at IS NULL")
_CURRENT = text("is_current")


class Verification(Base):
    """A training that is run twice, once without and once with a kill, and compared.

    Attributes:
        subject_sha256: of what decides how a job resumes; jobs with the same one share the result.
        spec: as it was checked, with every default filled in.
        seed: decides at which step is killed.
        tolerance: how far final metrics may differ, relative to the larger one.
        interruption: {"save_at_step", "kill_at_step"}, once they are known.
        interrupted_job_id: made once the reference has succeeded.
        verdict: exact, equivalent, weights-only or unknown; None until it is finished.
        is_compared: whether two ends were there to be compared, so that the verdict stands.
        is_current: whether this is what jobs of the subject show.
        details: what was compared, for people.
    """

    __tablename__ = "verifications"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("ver"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    subject_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(Name)
    spec: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    tolerance: Mapped[float]
    interruption: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # No foreign keys: a job may be deleted, what it showed stays.
    reference_job_id: Mapped[str] = mapped_column(Id)
    interrupted_job_id: Mapped[str | None] = mapped_column(Id)
    verdict: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text, default="")
    is_compared: Mapped[bool] = mapped_column(default=False)
    is_current: Mapped[bool] = mapped_column(default=False)
    details: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    version: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str] = mapped_column(Id)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_verifications_project_id_id", "project_id", "id"),
        Index("ix_verifications_open", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index(
            "uq_verifications_current",
            "project_id",
            "subject_sha256",
            unique=True,
            sqlite_where=_CURRENT,
            postgresql_where=_CURRENT,
        ),
        Index("ix_verifications_interrupted_job_id", "interrupted_job_id"),
    )
    # The caller raises `version`; a flush then checks the old one.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  read by SQLAlchemy
