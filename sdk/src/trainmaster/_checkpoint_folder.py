"""A checkpoint as a folder: `files/` with what it holds, and a manifest that makes it exist.

Standard library only. Knows nothing of what is in the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster._job_errors import RunError
from trainmaster._spool import spell

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = "files"
MANIFEST = "manifest.json"
FILES_MAX = 10_000
FILE_BYTES_MAX = 50 * 1024**3
_PATH_CHARACTERS_MAX = 512
_PART_BYTES_MAX = 255
_DEPTH_MAX = 32
_READ_BYTES = 1 << 20


class Checkpoint:
    """A committed checkpoint: `path` is the folder with its files, `step` when it was taken."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    def __repr__(self) -> str:
        return f"Checkpoint(step={self.step}, path={str(self.path)!r})"


def fresh_folder(checkpoints: Path, rank: int) -> Path:
    """Make and return an empty folder to write a checkpoint into."""
    folder = checkpoints / f"tmp-{rank}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True, mode=0o700)
    return folder


def flush_folder(folder: Path) -> None:
    """Wait until every file and folder below, and the folder itself, are on disk.

    Raises:
        RunError: it holds something that is neither a file nor a folder, no file at all, or
            what the service would refuse: odd names, too many or too large files.
    """
    count = 0
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if Path(parent, name).is_symlink():
                raise RunError(f"{name!a} in the checkpoint is a link: copy the file itself there")
        for name in names:
            path = Path(parent, name)
            if not path.is_file():
                raise RunError(f"{name!a} in the checkpoint is not a regular file: leave it out")
            _check_path(path.relative_to(folder).as_posix())
            if path.stat().st_size > FILE_BYTES_MAX:
                raise RunError(f"{name} has more than {FILE_BYTES_MAX} bytes: split it")
            _flush(path)
            count += 1
        _flush(Path(parent))
    if count > FILES_MAX:
        raise RunError(f"the checkpoint has more than {FILES_MAX} files: pack them together")
    if count == 0:
        raise RunError(f"the checkpoint folder {folder} holds no file: write into it first")


def commit_folder(
    folder: Path, checkpoints: Path, step: int, metrics: Mapping[str, float]
) -> Checkpoint:
    """Give a flushed folder its manifest and its final name, in this order.

    A crash at any line leaves either no checkpoint or a whole one.
    """
    entries = [
        {"path": name, "size_bytes": path.stat().st_size, "sha256": hash_file(path)}
        for name, path in sorted(_list_files(folder))
    ]
    building = checkpoints / f"tmp-{uuid.uuid4().hex[:12]}"
    building.mkdir(mode=0o700)
    folder.rename(building / FILES)
    manifest = {
        "step": step,
        "metrics": spell(metrics),
        "files": entries,
        "created_at": datetime.now(timezone.utc).isoformat(),
    }
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _flush(building / MANIFEST)
    _flush(building)
    ready = checkpoints / f"ready-{step:012d}-{uuid.uuid4().hex[:8]}"
    building.rename(ready)
    _flush(checkpoints)
    return Checkpoint(ready / FILES, step)


def prune(checkpoints: Path, keep_last: int) -> None:
    """Remove all but the newest checkpoints of a folder, each in one rename before its files."""
    for old in _list_ready(checkpoints)[:-keep_last]:
        doomed = checkpoints / f"tmp-{uuid.uuid4().hex[:12]}"
        old.rename(doomed)
        shutil.rmtree(doomed)


def open_checkpoint(path: Path) -> Checkpoint:
    """Find and verify the checkpoint that a path names.

    Args:
        path: a run's folder (its newest checkpoint is meant), its `checkpoints` folder, a
            checkpoint's folder, or the `files` in it.

    Raises:
        RunError: there is none, or a file differs from what the manifest says.
    """
    for checkpoints in (path / "checkpoints", path):
        ready = _list_ready(checkpoints)
        if ready:
            return _verified(ready[-1])
    for folder in (path, path.parent):
        if (folder / MANIFEST).is_file():
            return _verified(folder)
    raise RunError(f"{path} holds no checkpoint: name a run's folder or one of its checkpoints")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check_path(path: str) -> None:
    """Refuse, here and now, a name that the service would refuse later."""
    shown = ascii(path[:80])
    if not path.isprintable() or "\\" in path:
        raise RunError(
            f"{shown} in the checkpoint holds a backslash or a character that cannot be printed: "
            "rename the file"
        )
    parts = path.split("/")
    if len(path) > _PATH_CHARACTERS_MAX or max(len(part.encode()) for part in parts) > (
        _PART_BYTES_MAX
    ):
        raise RunError(
            f"{shown}… in the checkpoint is too long: at most {_PATH_CHARACTERS_MAX} characters "
            f"for a path and {_PART_BYTES_MAX} bytes for a name; rename the file"
        )
    if len(parts) > _DEPTH_MAX:
        raise RunError(
            f"{shown}… in the checkpoint lies more than {_DEPTH_MAX} folders deep: flatten the tree"
        )


def _verified(folder: Path) -> Checkpoint:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        path = folder / FILES / entry["path"]
        if not path.is_file() or hash_file(path) != entry["sha256"]:
            raise RunError(
                f"{path} is missing or not what was saved: resume from another checkpoint"
            )
    return Checkpoint(folder / FILES, int(manifest["step"]))


def _list_ready(checkpoints: Path) -> list[Path]:
    """Return the committed checkpoints, oldest first: by step, then by time of the commit."""
    if not checkpoints.is_dir():
        return []
    ready = [path for path in checkpoints.iterdir() if path.name.startswith("ready-")]
    return sorted(ready, key=lambda path: (path.name[:18], path.stat().st_mtime_ns))


def _list_files(folder: Path) -> list[tuple[str, Path]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
