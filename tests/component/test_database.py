"""The transaction boundary, on SQLite and PostgreSQL: all or nothing, rings after commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, func, inspect, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from models import Base, Database, DatabaseConfig, Lease, Pool, announce
from models.schema import downgrade_schema, is_current, upgrade_schema
from tests.postgres import BOTH, migrated_database
from tests.services import wait_for

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with migrated_database(request.param, request.config, tmp_path) as database:
        yield database


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with migrated_database("sqlite", request.config, tmp_path) as database:
        yield database


@pytest.fixture
def postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with migrated_database("postgres", request.config, tmp_path) as database:
        yield database


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


def test_a_row_that_is_locked_when_it_is_read_loses_no_update(database: Database) -> None:
    assert _count_in_threads(database, is_locked=True) == 100


def test_sqlite_has_one_writer_so_that_no_update_is_lost(sqlite: Database) -> None:
    assert _count_in_threads(sqlite, is_locked=False) == 100


def _count_in_threads(database: Database, *, is_locked: bool) -> int:
    with database.write() as session:
        session.add(Lease(name="x", holder="", term=0, expires_at=NOW))

    def count_up() -> None:
        for _ in range(25):
            with database.write() as session:
                session.get_one(Lease, "x", with_for_update=is_locked).term += 1

    _run_at_once(*[count_up] * 4)
    with database.read() as session:
        return session.get_one(Lease, "x").term


def _run_at_once(*works: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(works)) as threads:
        for running in [threads.submit(work) for work in works]:
            running.result(30)


@pytest.mark.postgres
def test_of_two_writers_that_wait_for_each_other_one_looks_again(postgres: Database) -> None:
    with postgres.write() as session:
        for name in ("a", "b"):
            session.add(Lease(name=name, holder="", term=0, expires_at=NOW))
    both_have_one = threading.Barrier(2)
    overtaken: list[str] = []

    def count_both(first: str, second: str) -> None:
        try:
            with postgres.write() as session:
                session.get_one(Lease, first, with_for_update=True).term += 1
                session.flush()
                both_have_one.wait(10)
                session.get_one(Lease, second, with_for_update=True).term += 1
        except StaleDataError:
            overtaken.append(first)

    _run_at_once(lambda: count_both("a", "b"), lambda: count_both("b", "a"))

    assert len(overtaken) == 1
    with postgres.read() as session:
        assert [session.get_one(Lease, name).term for name in "ab"] == [1, 1]


@pytest.mark.postgres
def test_a_server_that_falls_silent_is_noticed_unless_the_url_says_when(postgres: Database) -> None:
    url = postgres.engine.url.update_query_dict({"connect_timeout": "3"})

    with closing(Database(DatabaseConfig(url=url.render_as_string(hide_password=False)))) as other:
        mine, others = _parameters(postgres), _parameters(other)

    assert (mine["connect_timeout"], mine["tcp_user_timeout"]) == ("10", "25000")
    assert (others["connect_timeout"], others["tcp_user_timeout"]) == ("3", "25000")


def _parameters(database: Database) -> dict[str, str]:
    with closing(database.engine.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        found: dict[str, str] = driver.info.get_parameters()
        return found


@pytest.mark.postgres
def test_connections_that_the_server_has_cut_are_replaced(postgres: Database) -> None:
    assert _count(postgres) == 0
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    )
    with pytest.raises(OperationalError), postgres.read() as session:
        session.execute(text(cut))

    with postgres.write() as session:
        session.add(Pool(name="a", created_at=NOW))

    assert _count(postgres) == 1


def test_sqlite_waits_for_the_disk_at_every_commit(sqlite: Database) -> None:
    with sqlite.read() as session:
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
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}

    upgrade_schema(database)

    assert is_current(database)
    assert _count(database) == 0


@pytest.mark.postgres
def test_of_services_that_start_at_once_one_migrates_and_the_others_wait(
    postgres: Database,
) -> None:
    downgrade_schema(postgres, "base")
    config = DatabaseConfig(url=postgres.engine.url.render_as_string(hide_password=False))
    may_commit = threading.Event()

    def let_go_once_the_second_waits() -> None:
        wait_for("a waiting migration", lambda: _is_lock_waited_for(postgres))
        may_commit.set()

    with closing(Database(config)) as first, closing(Database(config)) as second:
        event.listen(first.engine, "commit", lambda _: may_commit.wait(30))
        _run_at_once(
            lambda: upgrade_schema(first),
            lambda: upgrade_schema(second),
            let_go_once_the_second_waits,
        )

    assert is_current(postgres)


def _is_lock_waited_for(database: Database) -> bool:
    with database.read() as session:
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(session.scalar(waiting))
