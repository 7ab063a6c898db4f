"""The scheduler's world on a migrated database, SQLite and PostgreSQL: about 40 ms each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models import Pool, Project, Queue
from tests.postgres import BOTH, migrated_database
from tests.worlds import START, World


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty world with one project and one pool."""
    with migrated_database(request.param, request.config, tmp_path) as database:
        with database.write() as session:
            session.add(Project(name="default", created_at=START))
            session.add(Pool(name="default", created_at=START))
            session.flush()
            session.add(Queue(name="default", pool="default", created_at=START))
        yield World(database)
