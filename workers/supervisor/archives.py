"""Read the entries of zip and tar archives without believing them.

Its own tar reader, because the standard library's has been fooled too often; `zipfile` reads the
zip directory. Says what is in an archive and refuses what no bundle may hold: links, devices,
damage. Limits and names are `bundle`'s matter; nothing is written here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

_BLOCK_BYTES = 256 * 1024
TAR_BLOCK_BYTES = 512
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


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""


@dataclass(frozen=True)
class Entry:
    """One file or folder. `source` is good until the next entry is asked for."""

    name: str
    is_folder: bool
    is_executable: bool
    size_bytes: int
    source: Source


def iter_zip(file: IO[bytes]) -> Iterator[Entry]:
    """Yield what the zip holds.

    Raises:
        BadBundle, zipfile.BadZipFile: it holds what no bundle may, or is damaged.
    """
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
                yield Entry(name, True, False, 0, file)
                continue
            executable = bool(info.external_attr >> 16 & 0o100)
            with archive.open(info) as content:
                yield Entry(name, False, executable, info.file_size, content)
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


def iter_tar(file: Source) -> Iterator[Entry]:
    """Yield what the tar holds, read in one pass.

    Raises:
        BadBundle: it holds what no bundle may, or is damaged.
    """
    long_name: str | None = None
    long_size: int | None = None
    while True:
        header = _read_exactly(file, TAR_BLOCK_BYTES)
        if header == bytes(TAR_BLOCK_BYTES):
            return
        if not is_tar_header(header):
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
            yield Entry(name, is_folder, executable, size, content)
            content.skip()
        else:
            what = _KINDS.get(kind, "of an unknown kind")
            raise BadBundle(f"{name[:80]!a} is {what}: put the file itself in the bundle")


class _TarContent:
    """The bytes of one entry, padding and all."""

    def __init__(self, file: Source, size: int) -> None:
        self._file, self._left = file, size
        self._padding = -size % TAR_BLOCK_BYTES

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self._left:
            if not self.read(_BLOCK_BYTES):
                raise BadBundle("the tar is cut short: upload it again")
        _read_exactly(self._file, self._padding)


def is_tar_header(header: bytes) -> bool:
    """Say whether these 512 bytes are a tar header, by their checksum."""
    if len(header) < TAR_BLOCK_BYTES:
        return False
    with contextlib.suppress(BadBundle):
        said = _read_number(header[148:156])
        return said == sum(header[:148]) + 8 * 0x20 + sum(header[156:TAR_BLOCK_BYTES])
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


def _read_extra(file: Source, size: int) -> bytes:
    if size > _TAR_EXTRA_LIMIT_BYTES:
        raise BadBundle("the tar has an oversized header: pack it again")
    return _read_exactly(file, size + -size % TAR_BLOCK_BYTES)[:size]


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


def _read_exactly(file: Source, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = file.read(size - len(data))
        if not piece:
            raise BadBundle("the tar is cut short: upload it again")
        data += piece
    return data
