"""The service over HTTP on a migrated database, about 50 ms each.

On SQLite, and on PostgreSQL as well where TRAINMASTER_TEST_POSTGRES_URL names a server.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from models import Database, DatabaseConfig
from models.schema import upgrade_schema
from tests.component.api_data.desk import Desk
from tests.component.api_data.verified import Play

SERVER = os.environ.get("TRAINMASTER_TEST_POSTGRES_URL")
KINDS = ["sqlite", *([pytest.param("postgres", marks=pytest.mark.postgres)] if SERVER else [])]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database without rows, about 0.1 s; to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_template() -> Iterator[str]:
    """A migrated PostgreSQL database without rows, about 1 s; to be copied."""
    name = f"trainmaster_test_{os.getpid()}"
    _tell_server(f"CREATE DATABASE {name}")
    _migrate(_url_of(name))
    yield name
    _tell_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database with all tables."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "test.db")
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    template = request.getfixturevalue("migrated_template")
    name = f"{template}_{next(_numbers)}"
    _tell_server(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url_of(name)
    _tell_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database with all tables."""
    database = Database(DatabaseConfig(url=database_url))
    yield database
    database.close()


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    """The service with one project, one pool, and nothing in them."""
    desk = Desk(database, tmp_path / "storage")
    with desk.http:
        yield desk


@pytest.fixture
def play(desk: Desk) -> Play:
    """A node, and the loop of verifications."""
    return Play(desk)


def _migrate(url: str) -> None:
    database = Database(DatabaseConfig(url=url))
    upgrade_schema(database)
    database.close()


def _url_of(name: str) -> str:
    assert SERVER is not None
    return make_url(SERVER).set(database=name).render_as_string(hide_password=False)


def _tell_server(statement: str) -> None:
    assert SERVER is not None
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
