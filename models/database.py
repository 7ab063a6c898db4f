"""Engine, sessions, and the one place where transactions begin and end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, ExceptionContext, create_engine, event, make_url
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from models.doorbell import Doorbell
from models.together import Together

T = TypeVar("T")

_TOPICS = "topics"
# What PostgreSQL says to the one of several transactions that it gave up: serialization_failure,
# deadlock_detected.
_GIVEN_UP = frozenset({"40001", "40P01"})
# A server that falls silent is noticed within half a minute; what the URL says comes first.
_POSTGRES_TIMEOUTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """Where the rows live.

    Attributes:
        url: SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
        pool_size: connections kept; match the thread limit of the web server.
    """

    url: str
    pool_size: int = 40


class Database:
    """Hands out sessions: `read()` for queries, `write()` for one transaction."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.doorbell = Doorbell()
        url = make_url(config.url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if not self.is_sqlite:
            url = url.set(query={**_POSTGRES_TIMEOUTS, **url.query})
        self.engine = create_engine(
            url, pool_size=config.pool_size, max_overflow=10, pool_pre_ping=True
        )
        # SQLite has one writer: waiting here is fair and cheap, waiting there polls and starves.
        self._writers: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        event.listen(self.engine, "handle_error", _say_overtaken)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        writing = self.engine.execution_options(write=True)
        self._write = sessionmaker(writing, expire_on_commit=False)
        self._together = Together(self.write)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session for queries; nothing that it does is kept."""
        with self._read() as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session that is one transaction: all of it is kept, or on an error nothing.

        What was announced rings after the commit. Nothing may wait on a network inside.

        PostgreSQL has many writers, and each sees what others have committed a moment ago. What is
        read here and then decided upon must be compared when it is written (a job's `version`), or
        be locked when it is read.

        Raises:
            StaleDataError: another transaction was faster; look again.
        """
        with self._writers, self._write.begin() as session:
            yield session
        self.doorbell.ring(session.info.get(_TOPICS, ()))

    def write_together(self, work: Callable[[Session], T]) -> T:
        """Return what `work` returns, done in one transaction that others may share.

        For hot writes: on SQLite those that wait at the same moment are committed with one sync of
        the disk. `work` may run twice, see `Together.run`. PostgreSQL groups commits by itself.
        """
        if self.is_sqlite:
            return self._together.run(work)
        with self.write() as session:
            return work(session)

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def announce(session: Session, *topics: str) -> None:
    """Ring `topics` once this transaction is committed."""
    session.info.setdefault(_TOPICS, set()).update(topics)


def _say_overtaken(context: ExceptionContext) -> None:
    """Say in one way that another transaction was faster, also when the database has chosen so."""
    if getattr(context.original_exception, "sqlstate", None) in _GIVEN_UP:
        raise StaleDataError("given up for another transaction") from context.original_exception


def _prepare_sqlite(dbapi: Any, _record: object) -> None:
    dbapi.isolation_level = None  # SQLAlchemy's BEGIN below decides, not the driver
    # FULL: with NORMAL a power loss may take back an answered 201.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "cache_size=-32768",
    ):
        dbapi.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
