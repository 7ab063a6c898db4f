"""What an operator runs once: migrations, the OpenAPI document, the settings in force."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from api.app import create_app
from api.config import ApiConfig
from api.roles.prepare import CannotStart, make_data_folder
from api.settings import CHECKOUT, Settings
from api.system.openapi import render
from models import Database, DatabaseConfig
from models.schema import is_current, upgrade_schema, write_revision


def run(role: str, settings: Settings, arguments: list[str]) -> int:
    """Run `role` and return its exit status."""
    if role == "openapi":
        sys.stdout.write(render_openapi())
        return 0
    if role == "settings":
        for name, value in settings:
            sys.stdout.write(f"TRAINMASTER_{name.upper()}={value}\n")
        return 0
    if role == "revision":
        return _write_revision(" ".join(arguments))
    return _migrate(settings)


def render_openapi() -> str:
    """Return the OpenAPI document, the same bytes for the same code."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(DatabaseConfig(url=f"sqlite:///{folder}/none.db"))
        config = ApiConfig(
            storage_dir=Path(folder),
            recipes_dir=CHECKOUT / "sdk" / "src" / "trainmaster" / "recipes",
            signing_key=bytes(32),
        )
        return render(create_app(config, database))


def _write_revision(text: str) -> int:
    if not text:
        sys.stderr.write("trainmaster: say what changes: revision add the colour of nodes\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        database = Database(DatabaseConfig(url=f"sqlite:///{folder}/draft.db"))
        upgrade_schema(database)
        write_revision(database, text)
        database.close()
    return 0


def _migrate(settings: Settings) -> int:
    try:
        make_data_folder(settings)
    except CannotStart as error:
        sys.stderr.write(f"trainmaster: {error}\n")
        return 1
    database = Database(DatabaseConfig(url=settings.sqlalchemy_url))
    was_current = is_current(database)
    upgrade_schema(database)
    database.close()
    sys.stdout.write("already at the newest revision\n" if was_current else "migrated\n")
    return 0
