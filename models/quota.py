"""What projects and their users may use, and what they have used."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, new_id

_OF_PROJECT = text("user_id IS NULL")


class Quota(Base):
    """What a project, or one user of it, is entitled to and may use at most.

    Attributes:
        user_id: a key's id; None for the project as a whole.
        weight: of its share among its siblings.
        guaranteed_gpus: up to here it goes first and is not preempted by borrowers.
        limit_gpus: never more than this at once; None: no limit.
        may_borrow: whether it may use more than is guaranteed while others do not need it.
        gpu_hours_per_month: None: no budget.
        priority_max: what its jobs may ask for at most.
    """

    __tablename__ = "quotas"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("quo"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[str | None] = mapped_column(Id)
    weight: Mapped[int] = mapped_column(default=1)
    guaranteed_gpus: Mapped[int] = mapped_column(default=0)
    limit_gpus: Mapped[int | None]
    may_borrow: Mapped[bool] = mapped_column(default=True)
    gpu_hours_per_month: Mapped[float | None]
    priority_max: Mapped[int] = mapped_column(default=100)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    # NULLs are never equal, so the project's own row needs an index of its own.
    __table_args__ = (
        Index("uq_quotas_project_id_user_id", "project_id", "user_id", unique=True),
        Index(
            "uq_quotas_project",
            "project_id",
            unique=True,
            sqlite_where=_OF_PROJECT,
            postgresql_where=_OF_PROJECT,
        ),
    )
    # The caller raises `version`; a flush then checks the old one.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  read by SQLAlchemy


class UsageShare(Base):
    """GPU-milliseconds that a user of a project has had, decayed up to an instant.

    Attributes:
        user_id: a key's id, "" when nobody's.
        gpu_ms: of attempts that have ended, halved with every half-life before `as_of_at`.
    """

    __tablename__ = "usage_shares"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    gpu_ms: Mapped[int] = mapped_column(BigInteger)
    as_of_at: Mapped[datetime]


class UsageMonth(Base):
    """What a user of a project has had in one month (UTC), by attempts that have ended.

    Attributes:
        month: `2031-05`.
        num_attempts: that ended in it.
    """

    __tablename__ = "usage_months"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True, index=True)
    gpu_ms: Mapped[int] = mapped_column(BigInteger)
    cpu_ms: Mapped[int] = mapped_column(BigInteger)
    num_attempts: Mapped[int]
