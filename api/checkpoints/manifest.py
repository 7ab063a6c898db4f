"""What a checkpoint may consist of: names, sizes and hashes of its files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scheduler.core.errors import Problem

FILES_MAX = 10_000
FILE_BYTES_MAX = 50 * 1024**3
PATH_LENGTH_MAX = 512
_PART_LENGTH_MAX = 255
_DEPTH_MAX = 32

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: where it lies below the checkpoint, how large it is, and its SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str


def find_path_fault(path: str) -> str | None:
    """Return what is wrong with the path of a file in a checkpoint, None when it is good.

    The service never makes a path on disk from it; who downloads a checkpoint does.
    """
    if not 1 <= len(path) <= PATH_LENGTH_MAX:
        return f"a path has 1 to {PATH_LENGTH_MAX} characters"
    if not path.isprintable() or "\\" in path:
        return "a path has no control characters and no backslash"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "a path is relative, without empty parts, . or .."
    if len(parts) > _DEPTH_MAX or any(len(part.encode()) > _PART_LENGTH_MAX for part in parts):
        return f"a path has at most {_DEPTH_MAX} parts of at most {_PART_LENGTH_MAX} bytes"
    return None


def check_files(files: Sequence[ManifestFile]) -> tuple[Problem, ...]:
    """Return everything that is wrong with the files of a manifest, at most 20 problems."""
    if not 1 <= len(files) <= FILES_MAX:
        message = f"a checkpoint has 1 to {FILES_MAX} files: pack small ones together"
        return (Problem("/files", "bad_number_of_files", message),)
    problems = [problem for _, problem in zip(range(20), _iter_problems(files), strict=False)]
    return tuple(problems)


def _iter_problems(files: Sequence[ManifestFile]) -> Iterator[Problem]:
    paths = {file.path for file in files}
    seen: set[str] = set()
    for index, file in enumerate(files):
        pointer = f"/files/{index}"
        fault = find_path_fault(file.path)
        if fault is not None:
            yield Problem(f"{pointer}/path", "bad_path", fault)
        elif file.path in seen:
            yield Problem(f"{pointer}/path", "doubled_path", "two files have this path")
        elif any(folder in paths for folder in _iter_folders(file.path)):
            yield Problem(f"{pointer}/path", "bad_path", "it lies below a file, not a folder")
        seen.add(file.path)
        if not 0 <= file.size_bytes <= FILE_BYTES_MAX:
            message = f"a file has 0 to {FILE_BYTES_MAX} bytes: split it"
            yield Problem(f"{pointer}/size_bytes", "bad_size", message)
        if not _SHA256.fullmatch(file.sha256):
            message = "64 hexadecimal digits in lower case"
            yield Problem(f"{pointer}/sha256", "bad_hash", message)


def _iter_folders(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
