"""The API in this process, on a migrated database, SQLite and PostgreSQL: about 50 ms each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.app import create_app
from api.config import ApiConfig
from api.first_start import prepare_first_start
from models import Database
from scheduler.shell.oracle import Oracle
from scheduler.shell.snapshot import Sight
from tests.app_client import AppClient
from tests.postgres import BOTH, migrated_database

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "sdk" / "src" / "trainmaster" / "recipes"


@pytest.fixture(params=BOTH)
def app_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database of its own."""
    with migrated_database(request.param, request.config, tmp_path) as database:
        yield database


@pytest.fixture
def app_client(tmp_path: Path, app_database: Database) -> Iterator[AppClient]:
    """The app after its first start, called with its admin key."""
    with _open_app(app_database, tmp_path) as client:
        yield client


@pytest.fixture(scope="module", params=BOTH)
def shared_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AppClient]:
    """The same, once for all tests of a module: for those that change nothing of others."""
    folder = tmp_path_factory.mktemp("shared")
    with (
        migrated_database(request.param, request.config, folder) as database,
        _open_app(database, folder) as client,
    ):
        yield client


@contextlib.contextmanager
def _open_app(database: Database, folder: Path) -> Iterator[AppClient]:
    first = prepare_first_start(database, folder, now=datetime.now(UTC))
    assert first.admin_key_path is not None
    config = ApiConfig(
        storage_dir=folder / "storage",
        recipes_dir=RECIPES,
        signing_key=first.signing_key,
        input_roots=("/datasets",),
        version="0.1.0",
    )
    sight = Sight(silence_max=timedelta(minutes=10), lease=timedelta(seconds=60))
    # However busy the machine is, what is looked for is found.
    app = create_app(config, database, Oracle(database, sight, patience_s=60))
    with AppClient(app, config, database, first.admin_key_path.read_text().strip()) as client:
        yield client
