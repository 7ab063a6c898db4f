"""The first start: one admin key for whoever owns the data folder, once."""

from __future__ import annotations

import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from api.auth.tokens import has_good_checksum, hash_secret
from api.first_start import FirstStart, prepare_first_start
from models import ApiKey, Database, DatabaseConfig, Pool, Project, Role

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(app_database: Database) -> Database:
    """A migrated database without rows."""
    return app_database


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_project_pool_and_one_admin_key(
    database: Database, tmp_path: Path
) -> None:
    first = prepare_first_start(database, tmp_path, now=NOW)

    assert first.admin_key_path == tmp_path / "admin.key"
    secret = first.admin_key_path.read_text().strip()
    assert secret.startswith("tml-")
    assert has_good_checksum(secret)
    assert len(first.signing_key) == 32
    assert _mode(tmp_path / "admin.key") == _mode(tmp_path / "signing.key") == 0o600
    with database.read() as session:
        key = session.scalars(select(ApiKey)).one()
        assert (key.role, key.secret_sha256) == (Role.ADMIN, hash_secret(secret))
        assert session.scalars(select(Project.name)).all() == ["default"]
        assert session.scalars(select(Pool.name)).all() == ["default"]


def test_the_second_start_changes_nothing(database: Database, tmp_path: Path) -> None:
    first = prepare_first_start(database, tmp_path, now=NOW)
    before = (tmp_path / "admin.key").read_bytes()

    second = prepare_first_start(database, tmp_path, now=NOW)

    assert second == FirstStart(signing_key=first.signing_key, admin_key_path=None)
    assert (tmp_path / "admin.key").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".key") == [
        "admin.key",
        "signing.key",
    ]


def test_a_removed_key_file_does_not_come_back(database: Database, tmp_path: Path) -> None:
    prepare_first_start(database, tmp_path, now=NOW)
    (tmp_path / "admin.key").unlink()

    assert prepare_first_start(database, tmp_path, now=NOW).admin_key_path is None
    assert not (tmp_path / "admin.key").exists()


def test_a_start_that_was_cut_off_before_the_commit_is_made_good(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(database.engine.dialect, "do_commit", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        prepare_first_start(database, tmp_path, now=NOW)
    monkeypatch.undo()
    dead = (tmp_path / "admin.key").read_text()

    first = prepare_first_start(database, tmp_path, now=NOW)

    assert first.admin_key_path is not None
    living = first.admin_key_path.read_text()
    assert living != dead
    with database.read() as session:
        stored = session.scalars(select(ApiKey.secret_sha256)).one()
    assert stored == hash_secret(living.strip())


def test_of_many_first_starts_at_once_one_makes_the_key(database: Database, tmp_path: Path) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    databases = [Database(DatabaseConfig(url=url)) for _ in range(8)]
    results: list[FirstStart] = []
    start = threading.Barrier(8)

    def run(database: Database) -> None:
        start.wait()
        results.append(prepare_first_start(database, tmp_path, now=NOW))

    threads = [threading.Thread(target=run, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 8
    assert len([one for one in results if one.admin_key_path is not None]) == 1
    assert len({one.signing_key for one in results}) == 1
    with databases[0].read() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 1
        stored = session.scalars(select(ApiKey.secret_sha256)).one()
    assert stored == hash_secret((tmp_path / "admin.key").read_text().strip())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for database in databases:
        database.close()


def test_a_damaged_signing_key_is_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_bytes(b"short")

    with pytest.raises(ValueError, match="damaged"):
        prepare_first_start(database, tmp_path, now=NOW)
