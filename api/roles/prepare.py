"""What every role does first: folders, database, first start. Refuses what cannot work."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from api.config import ApiConfig, Timers
from api.first_start import prepare_first_start
from api.settings import CHECKOUT, Settings
from models import Database, DatabaseConfig
from models.schema import upgrade_schema

THREADS = 40


class CannotStart(Exception):
    """The service cannot run like this; the message says the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A service that is ready to run.

    Attributes:
        lock: held as long as this process lives; None where several may run.
    """

    settings: Settings
    database: Database
    config: ApiConfig
    lock: IO[bytes] | None


def prepare(settings: Settings) -> Prepared:
    """Make folders and keys, take the lock, bring the database up to date.

    Raises:
        CannotStart: the data folder cannot be used, or another service holds it.
    """
    folder = make_data_folder(settings)
    database, lock = _open_database(settings, folder)
    first = prepare_first_start(database, folder, now=datetime.now(UTC))
    timers = Timers(
        heartbeat_seconds=settings.heartbeat_seconds,
        lease_seconds=settings.lease_seconds,
        fence_seconds=settings.fence_seconds,
        grace_seconds=settings.grace_seconds,
        attempt_token_seconds=settings.attempt_token_seconds,
    )
    host, _ = settings.bind_address
    config = ApiConfig(
        storage_dir=folder / "storage",
        recipes_dir=CHECKOUT / "sdk" / "src" / "trainmaster" / "recipes",
        signing_key=first.signing_key,
        timers=timers,
        input_roots=settings.input_roots,
        allowed_hosts=("127.0.0.1", "::1", "localhost", host, *settings.allowed_hosts),
        version=version("trainmaster"),
    )
    return Prepared(settings=settings, database=database, config=config, lock=lock)


def _open_database(settings: Settings, folder: Path) -> tuple[Database, IO[bytes] | None]:
    url = settings.sqlalchemy_url
    try:
        database = Database(DatabaseConfig(url=url, pool_size=THREADS))
        lock = _lock_data_folder(folder) if database.is_sqlite else None
        upgrade_schema(database)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise CannotStart(
            "TRAINMASTER_DATABASE_URL is not an address of SQLite or PostgreSQL: leave it out, or "
            "set it to postgresql+psycopg://user:password@host/name"
        ) from error
    except (OperationalError, CommandError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise CannotStart(
            f"the database cannot be used ({cause}): check TRAINMASTER_DATABASE_URL, and that this "
            "checkout is not older than the database"
        ) from error
    return database, lock


def make_data_folder(settings: Settings) -> Path:
    """Create the data folder, for its owner alone, and return it."""
    os.umask(0o077)
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise CannotStart(
            f"the data folder {folder} cannot be used ({error.strerror}): "
            "set TRAINMASTER_DATA_DIR to a folder of yours"
        ) from error
    return folder


def open_socket(settings: Settings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        CannotStart: the address is taken, or open to the network without a proxy in front.
    """
    host, port = settings.bind_address
    if not _is_loopback(host) and not settings.behind_proxy:
        raise CannotStart(
            f"{host} is not a loopback address, and keys would cross the network in the clear: put "
            "a proxy with TLS in front and set TRAINMASTER_BEHIND_PROXY=1, or bind to 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise CannotStart(
            f"{host}:{port} cannot be listened on ({error.strerror}): end what uses it, or set "
            "TRAINMASTER_BIND to another address, such as 127.0.0.1:8701"
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lock_data_folder(folder: Path) -> IO[bytes]:
    """Keep a second service away: SQLite has one writing process."""
    lock = (folder / "service.lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise CannotStart(
            f"another service already uses {folder}: SQLite allows one. End it, set "
            "TRAINMASTER_DATA_DIR to another folder, or use PostgreSQL for several"
        ) from error
    return lock
