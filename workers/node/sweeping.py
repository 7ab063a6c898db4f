"""Remove what is no longer needed, away from the threads that must not wait."""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
import time
from pathlib import Path

from workers.supervisor.layout import NodeFolder

_log = logging.getLogger("trainmaster.node")
_CACHE_LOOK_S = 300.0


class Sweeper:
    """Removes run folders and the least used cached files, on a thread of its own."""

    def __init__(self, node: NodeFolder, *, kept_max: int, cache_limit_bytes: int) -> None:
        self._node, self._kept_max, self._cache_limit_bytes = node, kept_max, cache_limit_bytes
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._looked_at_s = 0.0
        for folder in (node.trash, node.kept):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in node.trash.iterdir():
            self._queue.put(path)
        threading.Thread(target=self._run, name="sweeper", daemon=True).start()

    def remove(self, folder: Path) -> None:
        """Remove the folder; it is out of its place when this returns."""
        target = self._node.trash / f"{folder.name}-{time.monotonic_ns()}"
        try:
            folder.rename(target)
        except FileNotFoundError:
            return
        except OSError:
            _log.exception("not removed: %s", folder)
            return
        self._queue.put(target)

    def keep(self, folder: Path) -> None:
        """Keep the folder of a failed run, and drop the oldest of those that are kept."""
        if self._kept_max == 0:
            self.remove(folder)
            return
        with contextlib.suppress(FileNotFoundError):  # the job may have removed it
            folder.rename(self._node.kept / f"{time.time_ns()}-{folder.name}")
        for old in sorted(self._node.kept.iterdir())[: -self._kept_max]:
            self.remove(old)

    def _run(self) -> None:
        while True:
            path = self._queue.get()
            if path is not None:
                _remove(path)
            if time.monotonic() - self._looked_at_s > _CACHE_LOOK_S:
                self._looked_at_s = time.monotonic()
                trim_cache(self._node.cached_files, self._cache_limit_bytes)


def _remove(path: Path) -> None:
    """Remove a folder, or what a job has put in its place."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def trim_cache(folder: Path, limit_bytes: int) -> None:
    """Remove the files that were used longest ago, until the rest fits."""
    if not folder.is_dir():
        return
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            files.append((status.st_atime_ns, status.st_size, path))
    total_bytes = sum(size_bytes for _used, size_bytes, _path in files)
    for _used, size_bytes, path in sorted(files):
        if total_bytes <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        total_bytes -= size_bytes
