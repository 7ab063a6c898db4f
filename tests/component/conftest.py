"""The API in this process, on a migrated database, SQLite and PostgreSQL: about 50 ms each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.app import create_app
from api.config import ApiConfig
from api.first_start import prepare_first_start
from models import Database
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
    first = prepare_first_start(app_database, tmp_path, now=datetime.now(UTC))
    assert first.admin_key_path is not None
    (tmp_path / "storage").mkdir()
    config = ApiConfig(
        storage_dir=tmp_path / "storage",
        recipes_dir=RECIPES,
        signing_key=first.signing_key,
        input_roots=("/datasets",),
        version="0.1.0",
    )
    app = create_app(config, app_database)
    admin_key = first.admin_key_path.read_text().strip()
    with AppClient(app, config, app_database, admin_key) as client:
        yield client
