"""The transaction boundary: all or nothing, rings after commits, durable on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text

from models import Base, Database, DatabaseConfig, Lease, Pool, announce
from models.schema import downgrade_schema, is_current, upgrade_schema

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'test.db'}"))
    upgrade_schema(database)
    yield database
    database.close()


def _count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Pool)) or 0


def test_an_error_undoes_the_whole_transaction_and_rings_nothing(database: Database) -> None:
    since = database.doorbell.count("pools")

    with pytest.raises(RuntimeError, match="power cut"):
        _add_pool_and_fail(database)

    assert _count(database) == 0
    assert database.doorbell.count("pools") == since


def _add_pool_and_fail(database: Database) -> None:
    with database.write() as session:
        session.add(Pool(name="a", created_at=NOW))
        session.flush()
        announce(session, "pools")
        raise RuntimeError("power cut")


def test_a_ring_comes_after_the_row_is_there_for_everybody(database: Database) -> None:
    seen: list[int] = []
    database.doorbell.listen(lambda _: seen.append(_count(database)))

    with database.write() as session:
        session.add(Pool(name="a", created_at=NOW))
        announce(session, "pools")

    assert seen == [1]


def test_what_a_read_session_does_is_not_kept(database: Database) -> None:
    with database.read() as session:
        session.add(Pool(name="a", created_at=NOW))
        session.flush()

    assert _count(database) == 0


def test_concurrent_read_modify_writes_lose_nothing(database: Database) -> None:
    with database.write() as session:
        session.add(Lease(name="x", holder="", term=0, expires_at=NOW))

    def count_up() -> None:
        for _ in range(25):
            with database.write() as session:
                session.get_one(Lease, "x").term += 1

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with database.read() as session:
        assert session.get_one(Lease, "x").term == 100


def test_sqlite_waits_for_the_disk_at_every_commit(database: Database) -> None:
    with database.read() as session:
        assert session.scalar(text("PRAGMA synchronous")) == 2
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    with database.read() as session:
        context = MigrationContext.configure(session.connection())
        difference = compare_metadata(context, Base.metadata)

    assert difference == []
    assert is_current(database)


def test_the_chain_goes_down_and_up_again(database: Database) -> None:
    downgrade_schema(database, "base")
    with database.read() as session:
        tables = session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all()
    assert set(tables) <= {"alembic_version"}

    upgrade_schema(database)

    assert is_current(database)
    assert _count(database) == 0
