"""Bytes on this machine's disk, by opaque id: staged, synced, renamed. Knows no row and no HTTP.

Nothing is overwritten and nothing is seen half written: bytes are staged under a random name,
synced, and renamed to where their key says. No name that a user chose ever becomes part of a path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scheduler.core.errors import NotFound, OutOfStorage, Unavailable

_ID = re.compile(r"(file|ckpt)_[0-9a-z]{26}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What is left free: the database must still be able to say that the disk is full.
_RESERVE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Names stored bytes: a file, or (with `part`) one file of a checkpoint.

    Attributes:
        owner_id: `file_…` or `ckpt_…`.
        part: SHA-256 of the content, for what belongs to a checkpoint.
    """

    owner_id: str
    part: str | None = None


class LocalStorage:
    """A folder: `files/<id>`, `checkpoints/<id>/<sha256>`, `staging/<random>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with _translated():
            for name in ("files", "checkpoints", "staging"):
                (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, key: ObjectKey) -> Path:
        """Return where the bytes of `key` lie: the one place that makes a path from an id.

        Raises:
            NotFound: the key is not made of an id and a hash.
        """
        if not _ID.fullmatch(key.owner_id):
            raise NotFound("this object")
        if key.part is None:
            return self._folder(key.owner_id) / key.owner_id
        if not _SHA256.fullmatch(key.part):
            raise NotFound("this object")
        return self._folder(key.owner_id) / key.part

    def stage(self, *, expected_bytes: int = 0) -> Staged:
        """Open a place for new bytes.

        Raises:
            OutOfStorage: fewer than `expected_bytes` are free.
        """
        self.check_room(expected_bytes)
        with _translated():
            path = self.root / "staging" / uuid.uuid4().hex
            return Staged(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def keep(self, staged: Staged, key: ObjectKey) -> None:
        """Make the staged bytes durable, whole, and visible under `key`.

        The folder entry of a file is synced here; those of a checkpoint all at once, by
        `sync_checkpoint`.
        """
        target = self.path(key)
        with _translated():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            staged.sync()
            staged.path.rename(target)
            if key.part is None:
                _sync_folder(target.parent)

    def sync_checkpoint(self, checkpoint_id: str) -> None:
        """Make the folder entries of a checkpoint durable."""
        with _translated():
            folder = self._folder(checkpoint_id)
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder)
            _sync_folder(folder.parent)

    def find_size(self, key: ObjectKey) -> int | None:
        """Return how many bytes lie there, None when there is nothing."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, key: ObjectKey) -> BinaryIO:
        """Open the bytes for reading; a later delete does not disturb the reader.

        Raises:
            NotFound: there is nothing.
        """
        try:
            return self.path(key).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound("this object") from None

    def hash(self, key: ObjectKey) -> str | None:
        """Return the SHA-256 of the bytes as they are now, None when they are gone."""
        try:
            with _translated(), self.path(key).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def delete(self, owner_id: str) -> None:
        """Remove all bytes of a file or a checkpoint; it is no error when they are gone."""
        with _translated():
            if owner_id.startswith("file_"):
                self.path(ObjectKey(owner_id)).unlink(missing_ok=True)
                return
            folder = self._folder(owner_id)
            with contextlib.suppress(FileNotFoundError):
                for path in list(folder.iterdir()):
                    path.unlink(missing_ok=True)
                folder.rmdir()

    def iter_owners(self, *, older_than: float) -> Iterator[str]:
        """Yield the ids that have bytes, last touched before the Unix time `older_than`."""
        for name in ("files", "checkpoints"):
            for entry in os.scandir(self.root / name):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < older_than and _ID.fullmatch(entry.name):
                        yield entry.name

    def sweep_staging(self, *, older_than: float) -> int:
        """Remove staged bytes nobody has written to since the Unix time `older_than`."""
        removed = 0
        for entry in os.scandir(self.root / "staging"):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < older_than:
                    Path(entry.path).unlink()
                    removed += 1
        return removed

    def check_room(self, wanted_bytes: int) -> None:
        """Refuse early what cannot fit.

        Raises:
            OutOfStorage: fewer than `wanted_bytes` are free.
        """
        with _translated():
            free_bytes = shutil.disk_usage(self.root).free
        if free_bytes - _RESERVE_BYTES < wanted_bytes:
            raise OutOfStorage("the disk of the service is full: free some space, then try again")

    def _folder(self, owner_id: str) -> Path:
        if not _ID.fullmatch(owner_id):
            raise NotFound("this object")
        if owner_id.startswith("file_"):
            return self.root / "files"
        return self.root / "checkpoints" / owner_id


class Staged:
    """Bytes on their way in, counted and hashed as they come."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.size_bytes = 0
        self._handle = handle
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append; a full disk is `OutOfStorage`."""
        self._digest.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        with _translated():
            while view:
                view = view[os.write(self._handle, view) :]

    @property
    def sha256(self) -> str:
        """Hash of what has been written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Make the bytes durable and close."""
        with _translated():
            os.fsync(self._handle)
        self._close()

    def discard(self) -> None:
        """Forget the bytes; after `keep` there is nothing to forget."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say a full or broken disk in the words of the domain; a missing file stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            message = "the disk of the service is full: free some space, then try again"
            raise OutOfStorage(message) from error
        raise Unavailable("the disk of the service does not answer: try again later") from error


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
