"""what decides how a job resumes at the size that it is to have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("resize_resume_sha256", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_column("jobs", "resize_resume_sha256")
