"""The service over HTTP on a migrated SQLite database, about 50 ms each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import Database, DatabaseConfig
from models.schema import upgrade_schema
from tests.component.api_data.desk import Desk


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, about 0.1 s; to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    database = Database(DatabaseConfig(url=f"sqlite:///{path}"))
    upgrade_schema(database)
    database.close()
    return path


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """An empty database with all tables."""
    path = shutil.copy(migrated_file, tmp_path / "test.db")
    database = Database(DatabaseConfig(url=f"sqlite:///{path}"))
    yield database
    database.close()


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    """The service with one project, one pool, and nothing in them."""
    desk = Desk(database, tmp_path / "storage")
    with desk.http:
        yield desk
