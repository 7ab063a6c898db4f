"""The scheduler's world on a migrated SQLite database, about 40 ms each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models import Database, DatabaseConfig, Pool, Project
from models.schema import upgrade_schema
from tests.worlds import START, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty world with one project and one pool."""
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'test.db'}"))
    upgrade_schema(database)
    with database.write() as session:
        session.add(Project(name="default", created_at=START))
        session.add(Pool(name="default", created_at=START))
    yield World(database)
    database.close()
