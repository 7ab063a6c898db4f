"""Brings a database to the newest revision, and says whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select

from models.database import Database

_LOCK = 0x7472616D  # any number, but the same in every release
_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def upgrade_schema(database: Database, revision: str = "head") -> None:
    """Run the migrations up to `revision` in one transaction; at any time one process does."""
    with database.write() as session:
        if not database.is_sqlite:  # there the transaction itself is the lock
            session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        command.upgrade(_config(database, session.connection()), revision)


def downgrade_schema(database: Database, revision: str) -> None:
    """Run the migrations back to `revision`, or `base` for an empty database."""
    with database.write() as session:
        command.downgrade(_config(database, session.connection()), revision)


def is_current(database: Database) -> bool:
    """Whether the database is at the newest revision that this checkout knows."""
    head = ScriptDirectory.from_config(_config(database, None)).get_current_head()
    with database.read() as session:
        context = MigrationContext.configure(session.connection())
        return context.get_current_revision() == head


def write_revision(database: Database, message: str) -> None:
    """Write a new revision file from the difference between tables and database."""
    with database.write() as session:
        number = len(list((_MIGRATIONS / "versions").glob("[0-9]*.py"))) + 1
        command.revision(
            _config(database, session.connection()),
            message=message,
            autogenerate=True,
            rev_id=f"{number:04d}",
        )


def _config(database: Database, connection: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config
