"""Checkpoints: made whole and durable here first, then carried to the service in the background.

A checkpoint is `checkpoints/ready-<step>-<random>/` with `files/` and `manifest.json`; it exists
once the folder has that name. Knows nothing of what is inside the files.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import secrets
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workers.supervisor.failures import describe_full_disk
from workers.supervisor.files import (
    find_json,
    is_disk_full,
    open_regular,
    sync_folder,
    write_json,
)
from workers.supervisor.http import Refused, Unreachable
from workers.supervisor.link import GivenUp, Link, Stale
from workers.supervisor.manifest import (
    FILE_BYTES_MAX,
    FILES_MAX,
    BadCheckpoint,
    check_path,
    check_step,
    read_metrics,
)

_BLOCK_BYTES = 1024 * 1024
_UPLOADED = "uploaded"
_READY = re.compile(r"ready-\d{12,}-[0-9a-f]{8}")


def commit_folder(checkpoints: Path, folder: Path, *, step: int, metrics: dict[str, Any]) -> Path:
    """Make the rank's folder a checkpoint; return the folder that is its final name.

    Hashes and syncs every file, writes the manifest, and renames last: a crash leaves either the
    rank's folder or a whole checkpoint.

    Raises:
        BadCheckpoint: not a folder of regular files directly below `checkpoints`.
        OSError: the disk is full or failing.
    """
    if folder.parent.resolve() != checkpoints.resolve() or not folder.name.startswith("tmp-"):
        raise BadCheckpoint(f"{folder} is not a tmp-… folder in {checkpoints}")
    check_step(step)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise BadCheckpoint(f"{folder} is not a folder")
    files = [_seal(folder, relative) for relative in _list_files(folder)]
    if not files:
        raise BadCheckpoint(f"{folder} holds no files")
    name = f"ready-{step:012d}-{secrets.token_hex(4)}"
    staged = checkpoints / f"tmp-{name}"
    staged.mkdir(mode=0o700)
    folder.rename(staged / "files")
    manifest = {"step": step, "metrics": metrics, "files": files, "created_at": time.time()}
    write_json(staged / "manifest.json", manifest)
    _sync_file(staged / "manifest.json")
    sync_folder(staged / "files")
    sync_folder(staged)
    ready = checkpoints / name
    staged.rename(ready)
    sync_folder(checkpoints)
    return ready


def list_committed(checkpoints: Path) -> list[Path]:
    """Return the committed checkpoints that are still here, the newest among them."""
    return [path for path in checkpoints.glob("ready-*") if _READY.fullmatch(path.name)]


def list_ready(checkpoints: Path) -> list[Path]:
    """Return the committed checkpoints that the service may not have, in order of making."""
    ready = [path for path in checkpoints.glob("ready-*") if not (path / _UPLOADED).exists()]
    return sorted(ready, key=lambda path: (path.stat().st_mtime_ns, path.name))


class Uploader:
    """Uploads ready checkpoints one after another, on a thread that starts with the first."""

    def __init__(self, link: Link, on_trouble: Callable[[str], None]) -> None:
        """`on_trouble` gets a sentence for the user when a checkpoint is refused."""
        self._link = link
        self._on_trouble = on_trouble
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self._previous: Path | None = None
        self._is_finished = False
        self.lost: list[str] = []
        """A sentence for each checkpoint that the service will never have."""

    @property
    def is_delivered(self) -> bool:
        """Whether, after `finish`, the service has answered for every checkpoint."""
        return self._thread is None or self._is_finished

    def add(self, ready: Path) -> None:
        """Upload this checkpoint after those before it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)
            self._thread.start()
        self._queue.put(ready)

    def finish(self) -> None:
        """Say that no more will come."""
        self._queue.put(None)

    def abandon(self) -> None:
        """Stop as soon as possible; what is not uploaded stays in its folder."""
        self._abandoned.set()
        self._queue.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; True if it has come."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            ready = self._queue.get()
            if ready is None:
                self._is_finished = not self._abandoned.is_set()
                return
            try:
                self._upload(ready)
            except Refused as error:
                self._lose(f"the service refused checkpoint {ready.name}: {error.describe()}")
            except (OSError, KeyError, TypeError, ValueError) as error:
                self._lose(f"checkpoint {ready.name} cannot be read: {error}")
            except (Stale, GivenUp):
                return

    def _lose(self, sentence: str) -> None:
        self.lost.append(sentence)
        self._on_trouble(sentence)

    def _upload(self, ready: Path) -> None:
        manifest = find_json(ready / "manifest.json")
        if manifest is None:
            raise OSError(f"{ready / 'manifest.json'} is damaged")
        body = {key: manifest[key] for key in ("step", "metrics", "files")}
        body["name"] = ready.name
        answer = self._call("POST", "checkpoints", body)
        route = f"checkpoints/{answer['checkpoint_id']}"
        for upload in answer["uploads"]:
            self._put(ready / "files" / upload["path"], f"{route}/files/{quote(upload['path'])}")
        if answer["state"] != "committed":
            self._call("POST", f"{route}/commit")
        (ready / _UPLOADED).touch()
        # A rank may still read the newest; the one before it has served.
        if self._previous is not None:
            shutil.rmtree(self._previous, ignore_errors=True)
        self._previous = ready

    def _call(self, method: str, route: str, value: Any = None) -> Any:
        return self._link.call_patiently(method, route, value, wait=self._wait, timeout_s=60.0)

    def _put(self, path: Path, route: str) -> None:
        failures = 0
        while True:
            try:
                with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                    size_bytes = os.fstat(file.fileno()).st_size
                    body = file.read() if size_bytes <= _BLOCK_BYTES else file
                    self._link.call("PUT", route, body=body, size_bytes=size_bytes, timeout_s=60.0)
                return
            except Unreachable as error:
                failures += 1
                if self._wait(max(min(0.2 * 2**failures, 5.0), error.retry_after_s or 0)):
                    raise GivenUp(str(error)) from error

    def _wait(self, seconds: float) -> bool:
        return self._abandoned.wait(seconds)


class Committer:
    """Commits what ranks hand in, in order, away from the main thread: hashing takes time."""

    def __init__(self, checkpoints: Path, uploader: Uploader) -> None:
        self._checkpoints = checkpoints
        self._uploader = uploader
        self._queue: queue.SimpleQueue[tuple[Any, Callable[..., None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._num_taken = self._num_answered = 0

    def add(self, request: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Commit what the rank's message names; `reply` is called on the committer's thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
            self._thread.start()
        self._num_taken += 1
        self._queue.put((request, reply))

    @property
    def is_busy(self) -> bool:
        """Whether a rank waits for an answer."""
        return self._num_taken > self._num_answered

    def finish(self) -> None:
        """Commit what was handed in, and wait for it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            self._answer(*item)
            self._num_answered += 1

    def _answer(self, request: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        answer: dict[str, Any] = {"request": request.get("request")}
        try:
            ready = commit_folder(
                self._checkpoints,
                Path(str(request.get("path"))),
                step=check_step(request.get("step")),
                metrics=read_metrics(request.get("metrics")),
            )
        except Exception as error:  # noqa: BLE001  whatever a rank says, the next is served
            message = str(error)
            if isinstance(error, OSError) and is_disk_full(error):
                message = describe_full_disk(self._checkpoints)
            sys.stderr.write(f"checkpoint refused: {error!r}\n")
            reply({**answer, "op": "refused", "message": message})
        else:
            reply({**answer, "op": "committed", "path": str(ready / "files")})
            self._uploader.add(ready)


def _list_files(folder: Path) -> list[str]:
    """Return the paths below the folder, relative, sorted; refuse all but files and folders."""
    found: list[str] = []
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found.append(str(Path(entry.path).relative_to(folder)))
                else:
                    raise BadCheckpoint(
                        f"{entry.name!a} is neither a regular file nor a folder: leave it out"
                    )
                if len(found) > FILES_MAX:
                    raise BadCheckpoint(f"more than {FILES_MAX} files: pack them together")
    for relative in found:
        check_path(relative)
    return sorted(found)


def _seal(folder: Path, relative: str) -> dict[str, Any]:
    """Hash one file and make it durable."""
    handle = os.open(folder / relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise BadCheckpoint(f"{relative} is a link, not a file of its own")
        if status.st_size > FILE_BYTES_MAX:
            raise BadCheckpoint(f"{relative} has more than {FILE_BYTES_MAX} bytes: split it")
        digest, size_bytes = hashlib.sha256(), 0
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
        os.fsync(handle)
    return {"path": relative, "size_bytes": size_bytes, "sha256": digest.hexdigest()}


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
