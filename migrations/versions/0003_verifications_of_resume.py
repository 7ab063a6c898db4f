"""verifications of resume, and what decides how a job resumes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OPEN = sa.text("finished_at IS NULL")
_CURRENT = sa.text("is_current")


def upgrade() -> None:
    """Go to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "verifications",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("subject_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("tolerance", sa.Double(), nullable=False),
        sa.Column("interruption", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reference_job_id", sa.String(length=40), nullable=False),
        sa.Column("interrupted_job_id", sa.String(length=40), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("is_compared", sa.Boolean(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_verifications_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verifications")),
    )
    op.create_index("ix_verifications_project_id_id", "verifications", ["project_id", "id"])
    op.create_index(
        "ix_verifications_open",
        "verifications",
        ["id"],
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index(
        "uq_verifications_current",
        "verifications",
        ["project_id", "subject_sha256"],
        unique=True,
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    )
    op.create_index("ix_verifications_interrupted_job_id", "verifications", ["interrupted_job_id"])
    # Jobs that are there keep none: nobody can tell any more which code they ran.
    op.add_column("jobs", sa.Column("resume_sha256", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_column("jobs", "resume_sha256")
    op.drop_table("verifications")
