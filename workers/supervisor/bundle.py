"""Unpack a code bundle: zip, tar, tar.gz, or one Python file. Regular files and folders, no more.

Its own tar reader, because the standard library's has been fooled too often; `zipfile` reads the
zip directory, and every name and size is checked here. Knows nothing of attempts.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

_BLOCK_BYTES = 256 * 1024
_TAR_BLOCK = 512
_TAR_EXTRA_LIMIT_BYTES = 64 * 1024
_ZIP_DIRECTORY_LIMIT_BYTES = 16 * 1024 * 1024
_ZIP_END = struct.Struct("<4s4H2LH")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}


class BadBundle(ValueError):
    """The bundle is not unpacked; the message says the fact and the way out."""


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


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Entry:
    name: str
    is_folder: bool
    is_executable: bool
    size_bytes: int
    source: _Source


def unpack(bundle: Path, filename: str, into: Path, limits: Limits | None = None) -> None:
    """Unpack `bundle`, uploaded as `filename`, into the empty folder `into`.

    Raises:
        BadBundle: it is no bundle, it is damaged, or it holds what a bundle may not hold.
    """
    limits = limits or Limits()
    with bundle.open("rb") as file:
        head = file.read(_TAR_BLOCK)
        file.seek(0)
        try:
            if head[:2] == b"PK":
                _write(_iter_zip(file), into, limits, bundle.stat().st_size)
            elif head[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as plain:
                    bounded = _Bounded(plain, limits, bundle.stat().st_size)
                    _write(_iter_tar(bounded), into, limits, bundle.stat().st_size)
            elif _is_tar_header(head):
                _write(_iter_tar(file), into, limits, bundle.stat().st_size)
            elif filename.endswith(".py"):
                size_bytes = bundle.stat().st_size
                _write(iter([_Entry(filename, False, False, size_bytes, file)]), into, limits,
                       size_bytes)  # fmt: skip
            else:
                raise BadBundle(
                    f"{filename} is neither a zip, a tar, a tar.gz nor a .py file: pack the code "
                    "as one of these"
                )
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, struct.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
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

    def __init__(self, file: _Source, limits: Limits, packed_bytes: int) -> None:
        self._file = file
        # Headers and padding of many small files come on top of their bytes.
        room = limits.bytes_total + limits.entries * 4 * _TAR_BLOCK
        ratio_room = max(packed_bytes * limits.ratio, limits.ratio_free_bytes)
        self._left = min(room, ratio_room + limits.entries * 4 * _TAR_BLOCK)

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BadBundle("the bundle unpacks to far more than it should: leave data out of it")
        return data


def _write(entries: Iterator[_Entry], into: Path, limits: Limits, packed_bytes: int) -> None:
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


def _write_file(path: Path, entry: _Entry) -> None:
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


def _iter_zip(file: IO[bytes]) -> Iterator[_Entry]:
    _check_zip_end(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.orig_filename
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                link = "a symbolic link" if kind == stat.S_IFLNK else "a special file"
                raise BadBundle(f"{name[:80]!a} is {link}: put the file itself in the bundle")
            if info.flag_bits & 0x1:
                raise BadBundle(f"{name[:80]!a} is encrypted: pack it without a password")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadBundle(f"{name[:80]!a} is packed in an unusual way: use plain zip")
            if name.endswith("/") or kind == stat.S_IFDIR:
                yield _Entry(name, True, False, 0, file)
                continue
            executable = bool(info.external_attr >> 16 & 0o100)
            # Checked before the file is opened: a lying header must not choose where it is.
            check_name(name)
            with archive.open(info) as content:
                yield _Entry(name, False, executable, info.file_size, content)
                if content.read(1):
                    raise BadBundle(f"{name[:80]!a} is longer than the bundle says")


def _check_zip_end(file: IO[bytes]) -> None:
    """Refuse a directory of more entries than a bundle may have before it is read into memory."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - 65_557))
    tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) < start + _ZIP_END.size:
        raise BadBundle("the zip has no directory: upload it again")
    directory_bytes = _ZIP_END.unpack_from(tail, start)[5]
    if directory_bytes > _ZIP_DIRECTORY_LIMIT_BYTES:
        raise BadBundle("the zip's directory is too large: leave data out of the bundle")
    file.seek(0)


def _iter_tar(file: _Source) -> Iterator[_Entry]:
    long_name: str | None = None
    long_size: int | None = None
    while True:
        header = _read_exactly(file, _TAR_BLOCK)
        if header == bytes(_TAR_BLOCK):
            return
        if not _is_tar_header(header):
            raise BadBundle("the tar is damaged: upload it again")
        kind, size = header[156:157], _read_number(header[124:136])
        if kind in (b"L", b"x", b"g", b"K"):
            extra = _read_extra(file, size)
            if kind == b"L":
                long_name = _decode(extra.rstrip(b"\0"))
            elif kind == b"x":
                long_name, long_size = _read_pax(extra, long_name)
            continue
        name = _decode(_read_tar_name(header)) if long_name is None else long_name
        size = size if long_size is None else long_size
        long_name = long_size = None
        if kind in (b"0", b"\0", b"7", b"5"):
            is_folder = kind == b"5" or name.endswith("/")
            executable = bool(_read_number(header[100:108]) & 0o100)
            content = _TarContent(file, 0 if kind == b"5" else size)
            yield _Entry(name, is_folder, executable, size, content)
            content.skip()
        else:
            what = _KINDS.get(kind, "of an unknown kind")
            raise BadBundle(f"{name[:80]!a} is {what}: put the file itself in the bundle")


class _TarContent:
    """The bytes of one entry, padding and all."""

    def __init__(self, file: _Source, size: int) -> None:
        self._file, self._left = file, size
        self._padding = -size % _TAR_BLOCK

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self._left:
            if not self.read(_BLOCK_BYTES):
                raise BadBundle("the tar is cut short: upload it again")
        _read_exactly(self._file, self._padding)


def _is_tar_header(header: bytes) -> bool:
    if len(header) < _TAR_BLOCK:
        return False
    with contextlib.suppress(BadBundle):
        said = _read_number(header[148:156])
        return said == sum(header[:148]) + 8 * 0x20 + sum(header[156:_TAR_BLOCK])
    return False


def _read_tar_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _read_number(field: bytes) -> int:
    """Return a tar number: octal text, or base 256 when the first bit is set; never negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    try:
        number = int(text or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise BadBundle("the tar is damaged (a number in a header): upload it again")
    return number


def _read_extra(file: _Source, size: int) -> bytes:
    if size > _TAR_EXTRA_LIMIT_BYTES:
        raise BadBundle("the tar has an oversized header: pack it again")
    return _read_exactly(file, size + -size % _TAR_BLOCK)[:size]


def _read_pax(extra: bytes, name: str | None) -> tuple[str | None, int | None]:
    """Return path and size from extended headers (`<length> <key>=<value>\\n`)."""
    size: int | None = None
    while extra:
        length_text, _, _rest = extra.partition(b" ")
        length = int(length_text) if length_text.isdigit() and len(length_text) < 8 else 0
        if not 5 <= length <= len(extra):
            raise BadBundle("the tar is damaged (an extended header): upload it again")
        key, _, value = extra[len(length_text) + 1 : length - 1].partition(b"=")
        extra = extra[length:]
        if key == b"path":
            name = _decode(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 18:
                raise BadBundle("the tar is damaged (a size): upload it again")
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise BadBundle("the tar holds a sparse file: pack it without --sparse")
    return name, size


def _decode(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise BadBundle(f"the name {name[:80]!a} is not valid UTF-8: rename it") from error


def _read_exactly(file: _Source, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = file.read(size - len(data))
        if not piece:
            raise BadBundle("the tar is cut short: upload it again")
        data += piece
    return data
