"""Unpack a code bundle: zip, tar, tar.gz, or one Python file. Regular files and folders, no more.

Every name and size is checked before anything is written. Knows nothing of attempts.
"""

from __future__ import annotations

import errno
import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.supervisor.archives import (
    TAR_BLOCK_BYTES,
    BadBundle,
    Entry,
    Source,
    is_tar_header,
    iter_tar,
    iter_zip,
)

__all__ = ["BadBundle", "Limits", "check_name", "unpack"]

_BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Limits:
    """What a bundle may unpack to."""

    bytes_total: int = 1024**3
    entries: int = 10_000
    ratio: int = 100
    depth: int = 32
    name_bytes: int = 1024
    part_bytes: int = 255
    # Below this an archive may be as compressible as it likes.
    ratio_free_bytes: int = 4 * 1024 * 1024


def unpack(bundle: Path, filename: str, into: Path, limits: Limits | None = None) -> None:
    """Unpack `bundle`, uploaded as `filename`, into the empty folder `into`.

    Raises:
        BadBundle: it is no bundle, it is damaged, or it holds what a bundle may not hold.
    """
    limits = limits or Limits()
    with bundle.open("rb") as file:
        head = file.read(TAR_BLOCK_BYTES)
        file.seek(0)
        try:
            if head[:2] == b"PK":
                _write(iter_zip(file), into, limits, bundle.stat().st_size)
            elif head[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as plain:
                    bounded = _Bounded(plain, limits, bundle.stat().st_size)
                    _write(iter_tar(bounded), into, limits, bundle.stat().st_size)
            elif is_tar_header(head):
                _write(iter_tar(file), into, limits, bundle.stat().st_size)
            elif filename.endswith(".py"):
                size_bytes = bundle.stat().st_size
                _write(iter([Entry(filename, False, False, size_bytes, file)]), into, limits,
                       size_bytes)  # fmt: skip
            else:
                raise BadBundle(
                    f"{filename} is neither a zip, a tar, a tar.gz nor a .py file: pack the code "
                    "as one of these"
                )
        except BadBundle:
            raise
        except (
            OSError, EOFError, ValueError, OverflowError, zlib.error, zipfile.BadZipFile,
            struct.error,
        ) as error:  # fmt: skip
            # A seek to where the archive says, before its own start or beyond all files.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk's trouble, not the bundle's
            raise BadBundle(f"{filename} is damaged ({error}): upload it again") from error
        except (NotImplementedError, RuntimeError) as error:
            raise BadBundle(f"{filename} cannot be read ({error}): pack it as tar.gz") from error


def check_name(name: str, limits: Limits | None = None) -> tuple[str, ...]:
    """Return the parts of a relative path that stays below its folder.

    Raises:
        BadBundle: it is absolute, climbs, or holds what paths should not.
    """
    limits = limits or Limits()
    shown = ascii(name[:80])
    if "\0" in name or "\\" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise BadBundle(f"the name {shown} holds a control character or backslash: rename the file")
    if name.startswith("/"):
        raise BadBundle(f"{shown} is an absolute path: pack the code with relative paths")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadBundle(f"{shown} leads out of the bundle: pack the code from its own folder")
    try:
        too_long = len(name.encode()) > limits.name_bytes or any(
            len(part.encode()) > limits.part_bytes for part in parts
        )
    except UnicodeEncodeError as error:
        raise BadBundle(f"the name {shown} is not valid UTF-8: rename the file") from error
    if too_long:
        raise BadBundle(
            f"the name {shown}… is too long: at most {limits.part_bytes} bytes for a name and "
            f"{limits.name_bytes} for a path"
        )
    if len(parts) > limits.depth:
        raise BadBundle(f"{shown}… is more than {limits.depth} folders deep: flatten the tree")
    return parts


class _Bounded:
    """A decompressed stream that ends in an error rather than in a full disk."""

    def __init__(self, file: Source, limits: Limits, packed_bytes: int) -> None:
        self._file = file
        # Headers and padding of many small files come on top of their bytes.
        room = limits.bytes_total + limits.entries * 4 * TAR_BLOCK_BYTES
        ratio_room = max(packed_bytes * limits.ratio, limits.ratio_free_bytes)
        self._left = min(room, ratio_room + limits.entries * 4 * TAR_BLOCK_BYTES)

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BadBundle("the bundle unpacks to far more than it should: leave data out of it")
        return data


def _write(entries: Iterator[Entry], into: Path, limits: Limits, packed_bytes: int) -> None:
    seen: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = {()}
    total = count = 0
    allowed = max(packed_bytes * limits.ratio, limits.ratio_free_bytes)
    for entry in entries:
        count += 1
        if count > limits.entries:
            raise BadBundle(f"the bundle has more than {limits.entries} entries: leave data out")
        parts = check_name(entry.name, limits)
        total += 0 if entry.is_folder else entry.size_bytes
        if total > limits.bytes_total:
            raise BadBundle(
                f"the bundle unpacks to more than {limits.bytes_total >> 20} MiB: bring data as "
                "inputs, not as code"
            )
        if total > allowed:
            raise BadBundle(f"the bundle unpacks to more than {limits.ratio} times its size")
        if entry.is_folder:
            _make_folders(into, parts, folders, seen)
            continue
        if not parts:
            raise BadBundle("the bundle holds a file without a name: pack it again")
        if parts in seen or parts in folders:
            raise BadBundle(f"{'/'.join(parts)} is in the bundle twice: pack it again")
        _make_folders(into, parts[:-1], folders, seen)
        seen.add(parts)
        _write_file(into.joinpath(*parts), entry)


def _make_folders(
    into: Path,
    parts: tuple[str, ...],
    folders: set[tuple[str, ...]],
    files: set[tuple[str, ...]],
) -> None:
    for length in range(1, len(parts) + 1):
        part = parts[:length]
        if part in files:
            raise BadBundle(f"{'/'.join(part)} is both a file and a folder: pack it again")
        if part not in folders:
            into.joinpath(*part).mkdir(mode=0o700)
            folders.add(part)


def _write_file(path: Path, entry: Entry) -> None:
    mode = 0o700 if entry.is_executable else 0o600
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        left = entry.size_bytes
        while left:
            piece = entry.source.read(min(left, _BLOCK_BYTES))
            if not piece:
                raise BadBundle(f"{entry.name} is shorter than the bundle says: upload it again")
            file.write(piece)
            left -= len(piece)
