"""The service over HTTP on a migrated SQLite database, about 60 ms each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models import Database, DatabaseConfig
from models.schema import upgrade_schema
from tests.component.api_data.desk import Desk


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database with all tables."""
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'test.db'}"))
    upgrade_schema(database)
    yield database
    database.close()


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Desk:
    """The service with one project, one pool, and nothing in them."""
    return Desk(database, tmp_path / "storage")
