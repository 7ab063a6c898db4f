"""Packs a folder of code into one zip file, the same bytes for the same content.

Regular files only, in sorted order, with a fixed date, so that an unchanged folder has an
unchanged hash and is sent to a node once. Knows nothing about the service but its limits.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainmaster._errors import BundleError
from trainmaster._ignore import (
    DEFAULT_PATTERNS,
    IGNORE_FILE,
    Pattern,
    is_ignored,
    parse_patterns,
)

PACKED_BYTES_MAX = 100 * 1024**2
UNPACKED_BYTES_MAX = 1024**3
ENTRIES_MAX = 10_000
PATH_BYTES_MAX = 1024
RATIO_MAX = 100

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
_RATIO_KEPT = RATIO_MAX // 2
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file to pack: its name in the bundle, where it is, and what it was when looked at."""

    name: str
    source: Path
    size_bytes: int
    is_executable: bool


def list_entries(folder: Path) -> list[Entry]:
    """Return the files of a folder that go into its bundle, sorted by name.

    Raises:
        BundleError: nothing to pack, a link that leaves the folder, something that is neither
            file nor folder, a name that no bundle may have, or more than the limits.
    """
    top = folder.resolve()
    entries = sorted(_walk(top, top, _patterns_of(folder)), key=lambda entry: entry.name)
    if not entries:
        raise BundleError(f"{folder} has no files to pack: is it the right folder?")
    if len(entries) > ENTRIES_MAX:
        raise BundleError(
            f"{folder} has {len(entries)} files, a bundle at most {ENTRIES_MAX}: "
            f"name what the job does not need in {folder / IGNORE_FILE}"
        )
    size_bytes = sum(entry.size_bytes for entry in entries)
    if size_bytes > UNPACKED_BYTES_MAX:
        largest = max(entries, key=lambda entry: entry.size_bytes)
        raise BundleError(
            f"{folder} has {size_bytes / 1024**2:.0f} MiB, a bundle at most 1024 MiB; the largest "
            f"file is {largest.name}: name it in {folder / IGNORE_FILE}, and give data as an input"
        )
    return entries


def pack_folder(folder: Path, target: Path) -> None:
    """Write the bundle of a folder to `target`.

    Raises:
        BundleError: as `list_entries`, or packed it is over 100 MiB.
    """
    write_bundle(list_entries(folder), target)


def pack_file(file: Path, target: Path) -> None:
    """Write a bundle with a single script."""
    write_bundle([_entry(file.resolve(), file.name)], target)


def write_bundle(entries: list[Entry], target: Path) -> None:
    """Write a zip file of these entries.

    Raises:
        BundleError: packed it is over 100 MiB, or a file could not be read.
    """
    stored: set[str] = set()
    _write_zip(entries, target, stored)
    with zipfile.ZipFile(target) as bundle:
        stored = {
            info.filename
            for info in bundle.infolist()
            if info.file_size > _RATIO_KEPT * max(1, info.compress_size)
        }
    if stored:  # nodes take a high ratio for a bomb: such files go in as they are
        _write_zip(entries, target, stored)
    size_bytes = target.stat().st_size
    if size_bytes > PACKED_BYTES_MAX:
        raise BundleError(
            f"packed, the code has {size_bytes / 1024**2:.0f} MiB, a bundle at most 100 MiB: "
            f"name what the job does not need in {IGNORE_FILE}, and give data as an input"
        )


def _patterns_of(folder: Path) -> list[Pattern]:
    patterns = parse_patterns(DEFAULT_PATTERNS)
    try:
        with (folder / IGNORE_FILE).open(encoding="utf-8") as file:
            patterns += parse_patterns(file)
    except FileNotFoundError:
        pass
    except (UnicodeDecodeError, OSError) as error:
        raise BundleError(f"{folder / IGNORE_FILE} cannot be read: {error}") from error
    return patterns


def _walk(top: Path, folder: Path, patterns: list[Pattern]) -> Iterator[Entry]:
    with os.scandir(folder) as children:
        for child in children:
            path = Path(child.path)
            name = path.relative_to(top).as_posix()
            is_folder = child.is_dir(follow_symlinks=False)
            if is_ignored(name, patterns, is_folder=is_folder):
                continue
            if is_folder:
                if not (path / "pyvenv.cfg").exists():  # a virtual environment, however named
                    yield from _walk(top, path, patterns)
            elif child.is_symlink():
                yield _entry(_resolve_link(top, path, name), name)
            else:
                yield _entry(path, name)


def _resolve_link(top: Path, link: Path, name: str) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle, before Python 3.13
        raise BundleError(
            f"{name} is a link to nothing: delete it, or name it in {IGNORE_FILE}"
        ) from error
    if not target.is_relative_to(top) or target.is_dir():
        kind = "a link to a folder" if target.is_dir() else "a link out of the folder"
        raise BundleError(
            f"{name} is {kind}, which a bundle cannot hold: name it in {IGNORE_FILE}, and give "
            "data as an input"
        )
    return target


def _entry(path: Path, name: str) -> Entry:
    try:
        found = path.stat()
        encoded = name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BundleError(f"the name {name!r} is not UTF-8: rename the file") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{name} is no regular file: name it in {IGNORE_FILE}")
    if len(encoded) > PATH_BYTES_MAX or not name.isprintable() or "\\" in name:
        raise BundleError(f"the name {name!r} cannot go into a bundle: rename the file")
    return Entry(
        name=name,
        source=path,
        size_bytes=found.st_size,
        is_executable=bool(found.st_mode & stat.S_IXUSR),
    )


def _write_zip(entries: list[Entry], target: Path, stored: set[str]) -> None:
    with zipfile.ZipFile(target, "w", strict_timestamps=True) as bundle:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, date_time=_EPOCH)
            info.create_system = 3  # Unix, so that the mode below means something
            mode = 0o755 if entry.is_executable else 0o644
            info.external_attr = (stat.S_IFREG | mode) << 16
            info.compress_type = (
                zipfile.ZIP_STORED if entry.name in stored else zipfile.ZIP_DEFLATED
            )
            try:
                with entry.source.open("rb") as source, bundle.open(info, "w") as sink:
                    while piece := source.read(_PIECE_BYTES):
                        sink.write(piece)
            except OSError as error:
                raise BundleError(f"{entry.source} cannot be packed: {error}") from error
