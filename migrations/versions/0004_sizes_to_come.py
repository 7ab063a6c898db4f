"""the size that a job is to have once its attempt has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("resize_to", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_column("jobs", "resize_to")
