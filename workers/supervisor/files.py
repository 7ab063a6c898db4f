"""Small files that are always whole: written aside, then renamed. Knows not what they mean."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write the value as JSON, 0600, so that a reader sees the old file or the new one.

    Not synced: it outlives every process, not a loss of power.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=True)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def find_json(path: Path) -> dict[str, Any] | None:
    """Return the object in the file, or None if there is no file or no object in it."""
    try:
        # A pipe in the file's place must not block.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def open_regular(path: Path, flags: int) -> int:
    """Open a file where a job may have put something else: no link is followed, no pipe blocks.

    A file that is made gets 0600.

    Raises:
        OSError: there is no file (and none is made), or what is there is no regular file.
    """
    # The folder, too, may have been replaced by a link.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        safe = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path.name, safe, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    os.set_blocking(handle, True)
    return handle


def find_size(path: Path) -> int:
    """Return the bytes of a regular file; 0 when there is none."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def is_disk_full(error: OSError) -> bool:
    """Say whether a disk or a quota was full, rather than anything else wrong."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_folder(path: Path) -> None:
    """Make renames inside the folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Yield a path to the folder that is short enough for a socket address (107 bytes)."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
