"""Start a supervisor for a run folder: by a fork of the zygote, or else as a new process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from workers.supervisor import forkserver, wire
from workers.supervisor.files import open_regular

_log = logging.getLogger("trainmaster.node")
_ANSWER_LIMIT_S = 10.0


class Spawner:
    """Starts supervisors of one version of the library."""

    def __init__(self, library: Path, zygote: Path, owner_lock: Path, orphan_s: float) -> None:
        self._library, self._zygote = library, zygote
        self._owner_lock, self._orphan_s = owner_lock, orphan_s
        self._children: list[subprocess.Popen[bytes]] = []

    def start_zygote(self) -> None:
        """Have a zygote serve, unless one does already."""
        if forkserver.is_locked(self._zygote.with_suffix(".lock")):
            return
        try:
            forkserver.start(
                [
                    sys.executable, "-I", "-S", str(self._library), "zygote", str(self._zygote),
                    str(self._owner_lock), str(self._orphan_s),
                ],
                self._zygote,
                environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            _log.exception("zygote not started")

    def spawn(self, run_dir: Path, *, is_salvage: bool) -> int:
        """Start a supervisor, detached; return its pid.

        Raises:
            OSError: not even a new process can be started.
        """
        for _ in range(2):
            try:
                return self._fork(run_dir, is_salvage)
            except OSError as error:
                _log.info("zygote does not answer: %s", error)
                self.start_zygote()
        return self._execute(run_dir, is_salvage)

    def reap(self) -> None:
        """Let ended children go."""
        self._children = [child for child in self._children if child.poll() is None]

    def _fork(self, run_dir: Path, is_salvage: bool) -> int:
        connection = wire.connect(self._zygote, timeout_s=_ANSWER_LIMIT_S)
        try:
            connection.send({"op": "supervise", "run_dir": str(run_dir), "salvage": is_salvage})
            answer = connection.receive()
        finally:
            connection.close()
        if answer is None:
            raise ConnectionResetError("the zygote closed the connection")
        return int(answer["pid"])

    def _execute(self, run_dir: Path, is_salvage: bool) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log = open_regular(run_dir / "supervisor.log", flags)
        try:
            child = subprocess.Popen(
                [
                    sys.executable, "-I", "-S", str(self._library), "run", str(run_dir),
                    *(["--salvage"] if is_salvage else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip
        finally:
            os.close(log)
        self._children.append(child)
        return child.pid
