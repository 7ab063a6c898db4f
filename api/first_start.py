"""What a fresh data folder gets: a signing key, a project, a pool, its queue, an admin key.

There is no default password and no page to claim the service: the admin key is random, written
once to a file that only its owner can read. Safe to run by several processes at once, and to be
cut off anywhere; from the second time on it changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.auth.tokens import hash_secret, new_api_key
from models import ApiKey, Database, Pool, Project, Queue, Role

PROJECT = "default"
POOL = "default"
ADMIN_KEY_FILE = "admin.key"
SIGNING_KEY_FILE = "signing.key"
_SIGNING_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStart:
    """What the service starts with.

    Attributes:
        signing_key: signs cursors and attempt tokens.
        admin_key_path: where the admin key was written just now; None from the second start on.
    """

    signing_key: bytes
    admin_key_path: Path | None


def prepare_first_start(database: Database, data_dir: Path, *, now: datetime) -> FirstStart:
    """Make what is missing in `data_dir` and in the database.

    Raises:
        ValueError: the signing key's file was damaged.
    """
    signing_key = _load_signing_key(data_dir / SIGNING_KEY_FILE)
    try:
        with database.write() as session:
            admin_key_path = _add_admin(session, data_dir, now)
    except IntegrityError:
        # Another process was faster by a moment: it has written the key.
        admin_key_path = None
    return FirstStart(signing_key=signing_key, admin_key_path=admin_key_path)


def _add_admin(session: Session, data_dir: Path, now: datetime) -> Path | None:
    if session.get(Pool, POOL) is None:
        session.add(Pool(name=POOL, created_at=now))
        session.flush()
    if session.get(Queue, POOL) is None:
        session.add(Queue(name=POOL, pool=POOL, is_open=True, created_at=now))
    project = session.scalar(select(Project).where(Project.name == PROJECT))
    if project is None:
        project = Project(name=PROJECT, created_at=now)
        session.add(project)
    # The unique names are the lock: of two first starts, one fails here and leaves no file.
    session.flush()
    if session.scalar(select(ApiKey.id).limit(1)) is not None:
        return None
    secret = new_api_key()
    session.add(
        ApiKey(
            project_id=project.id,
            name="first admin",
            role=Role.ADMIN,
            secret_sha256=hash_secret(secret),
            last4=secret[-4:],
            created_at=now,
        )
    )
    session.flush()
    # The file before the commit: cut off between the two, the next start makes another key. The
    # other way round there would be an admin key that nobody has.
    path = data_dir / ADMIN_KEY_FILE
    _write_whole(path, secret.encode() + b"\n")
    return path


def _load_signing_key(path: Path) -> bytes:
    with contextlib.suppress(FileExistsError):
        if not path.exists():
            _create_whole(path, secrets.token_bytes(_SIGNING_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _SIGNING_KEY_BYTES:
        raise ValueError(f"{path} is damaged: remove it, and workers and cursors start anew")
    return key


def _write_whole(path: Path, content: bytes) -> None:
    """Write durably, replacing what is there; never visible in part."""
    draft = _draft(path, content)
    draft.replace(path)
    _sync_folder(path.parent)


def _create_whole(path: Path, content: bytes) -> None:
    """Write durably; FileExistsError when somebody was faster."""
    draft = _draft(path, content)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    return draft


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
