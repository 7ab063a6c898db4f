"""quotas, queues, usage, dependencies; what a fair scheduler must remember of jobs and nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SUCCEEDED = sa.text("state = 'succeeded'")
_OF_PROJECT = sa.text("user_id IS NULL")
# SQLite counts in 64 bits, but only under this name.
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "queues",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("pool", sa.String(length=128), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_queues_pool_pools")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
    )
    op.create_index(op.f("ix_queues_pool"), "queues", ["pool"], unique=False)

    op.create_table(
        "quotas",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.String(length=40), nullable=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("guaranteed_gpus", sa.Integer(), nullable=False),
        sa.Column("limit_gpus", sa.Integer(), nullable=True),
        sa.Column("may_borrow", sa.Boolean(), nullable=False),
        sa.Column("gpu_hours_per_month", sa.Double(), nullable=True),
        sa.Column("priority_max", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_quotas_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotas")),
    )
    op.create_index(
        "uq_quotas_project",
        "quotas",
        ["project_id"],
        unique=True,
        sqlite_where=_OF_PROJECT,
        postgresql_where=_OF_PROJECT,
    )
    op.create_index(
        "uq_quotas_project_id_user_id", "quotas", ["project_id", "user_id"], unique=True
    )

    op.create_table(
        "usage_months",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.String(length=40), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("gpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_usage_months_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("project_id", "user_id", "month", name=op.f("pk_usage_months")),
    )
    op.create_index(op.f("ix_usage_months_month"), "usage_months", ["month"], unique=False)

    op.create_table(
        "usage_shares",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.String(length=40), nullable=False),
        sa.Column("gpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("as_of_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_usage_shares_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("project_id", "user_id", name=op.f("pk_usage_shares")),
    )
    op.create_table(
        "job_dependencies",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("depends_on_job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["depends_on_job_id"],
            ["jobs.id"],
            name=op.f("fk_job_dependencies_depends_on_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
            name=op.f("fk_job_dependencies_job_id_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "depends_on_job_id", name=op.f("pk_job_dependencies")),
    )
    op.create_index(
        op.f("ix_job_dependencies_depends_on_job_id"),
        "job_dependencies",
        ["depends_on_job_id"],
        unique=False,
    )

    op.create_table(
        "node_faults",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("node_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("attempt_id", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name=op.f("fk_node_faults_node_id_nodes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_faults")),
    )
    op.create_index("ix_node_faults_node_id_at", "node_faults", ["node_id", "at"], unique=False)

    _add_columns()
    op.create_index(
        "ix_jobs_succeeded",
        "jobs",
        ["project_id", "name", "finished_at"],
        sqlite_where=_SUCCEEDED,
        postgresql_where=_SUCCEEDED,
    )
    _fill()


def _add_columns() -> None:
    # Columns and indexes one by one, not in batches: on SQLite a batch makes the table anew, which
    # drops its trigger, and with it every row that points to it.
    for column in (
        sa.Column("recipe", sa.String(length=128), nullable=True),
        sa.Column("request_gpu_models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("request_gpu_memory_mib", sa.Integer(), nullable=True),
        sa.Column("may_spread", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("evictions", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("served_ms", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("gpu_ms", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("deadline_served_ms", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("waiting_since_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reservation", sa.JSON(none_as_null=True), nullable=True),
    ):
        op.add_column("jobs", column)
    for column in (
        sa.Column("rack", sa.String(length=128), nullable=True),
        sa.Column("quarantined_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarantine_message", sa.Text(), nullable=True),
    ):
        op.add_column("nodes", column)


def _fill() -> None:
    """Give every pool its queue, and the jobs that are there what new ones get."""
    op.execute(
        "INSERT INTO queues (name, pool, is_open, created_at) "
        "SELECT name, name, true, created_at FROM pools"
    )
    op.execute(
        "UPDATE jobs SET queue = pool WHERE queue = 'default' "
        "AND state NOT IN ('succeeded', 'failed', 'cancelled')"
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    recipe = "spec->>'recipe'" if is_postgres else "json_extract(spec, '$.recipe')"
    op.execute(f"UPDATE jobs SET recipe = {recipe}")  # noqa: S608  one of the two constants above


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_index("ix_jobs_succeeded", "jobs")
    for name in ("quarantine_message", "quarantined_until", "rack"):
        op.drop_column("nodes", name)
    for name in (
        "reservation",
        "claim",
        "waiting_since_at",
        "deadline_served_ms",
        "gpu_ms",
        "served_ms",
        "evictions",
        "may_spread",
        "request_gpu_memory_mib",
        "request_gpu_models",
        "recipe",
    ):
        op.drop_column("jobs", name)
    for table in (
        "node_faults",
        "job_dependencies",
        "usage_shares",
        "usage_months",
        "quotas",
        "queues",
    ):
        op.drop_table(table)
