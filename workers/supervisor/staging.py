"""Bring what a run needs into its folder: code, inputs, the checkpoint to resume from."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.supervisor.assignment import Assignment, RemoteFile
from workers.supervisor.bundle import BadBundle, check_name, unpack
from workers.supervisor.failures import CannotStart
from workers.supervisor.files import write_json
from workers.supervisor.http import Refused
from workers.supervisor.layout import RunFolder
from workers.supervisor.link import GivenUp, Link, patiently
from workers.supervisor.stacks import STACK_SIGNAL

# Inputs up to this size are copied, so that a job that writes to one harms only itself.
_COPY_LIMIT_BYTES = 64 * 1024 * 1024
# The time of last change of every cached file: any other means that somebody wrote to it.
_SEALED_AT = 1_000_000_000
_TRIES = 3
# Starting an interpreter with torch in it may take this long on a machine that has much to do.
_SERVERS_WAIT_S = 60.0


class Stager:
    """Stages one run."""

    def __init__(
        self, link: Link, run: RunFolder, cache: Path, wait: Callable[[float], bool]
    ) -> None:
        """`wait(seconds)` pauses while the service is away and says True to give up."""
        self._link, self._run, self._cache, self._wait = link, run, cache, wait

    def stage(self, assignment: Assignment) -> None:
        """Stage everything and write run.json.

        Raises:
            CannotStart: something of the job's is not as it should be.
            GivenUp, Stale: as `Link`.
        """
        if assignment.code is not None:
            self._stage_code(assignment.code)
        inputs: dict[str, str] = {}
        for file in assignment.input_files:
            inputs[file.name] = str(self._stage_input(file))
        for folder in assignment.input_dirs:
            if not Path(folder.path).is_dir():
                raise CannotStart(
                    "DataUnavailable",
                    f"input {folder.name}: {folder.path} is not a folder on this node",
                )
            inputs[folder.name] = folder.path
        if assignment.resume is not None:
            self._run.restored.mkdir(mode=0o700, exist_ok=True)
            for file in assignment.resume.files:
                self._stage_restored(file)
        write_json(self._run.run_file, describe_run(assignment, self._run, inputs))

    def _stage_code(self, code: RemoteFile) -> None:
        bundle = self._fetch(code)
        try:
            unpack(bundle, code.name, self._run.code)
        except BadBundle as error:
            raise CannotStart("SetupFailed", f"code: {error}") from error

    def _stage_input(self, file: RemoteFile) -> Path:
        cached = self._fetch(file)
        target = self._run.inputs / check_name(file.name)[-1]
        if file.size_bytes > _COPY_LIMIT_BYTES:
            os.link(cached, target)
        else:
            shutil.copyfile(cached, target)
        return target

    def _stage_restored(self, file: RemoteFile) -> None:
        target = self._run.restored.joinpath(*check_name(file.name))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._download(file, target)

    def _fetch(self, file: RemoteFile) -> Path:
        """Return the file in the node's cache, downloading it if it is not there as it was."""
        cached = self._cache / check_name(file.sha256)[-1]
        try:
            status = cached.stat()
            if status.st_size == file.size_bytes and int(status.st_mtime) == _SEALED_AT:
                os.utime(cached, (time.time(), _SEALED_AT))  # the cache drops the least used
                return cached
        except FileNotFoundError:
            pass
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=self._cache)
        os.close(handle)
        partial = Path(name)
        try:
            self._download(file, partial)
            partial.chmod(0o400)
            os.utime(partial, (time.time(), _SEALED_AT))
            partial.replace(cached)
        finally:
            partial.unlink(missing_ok=True)
        return cached

    def _download(self, file: RemoteFile, target: Path) -> None:
        for _ in range(_TRIES):
            try:
                patiently(lambda: self._download_once(file, target), self._wait)
            except Refused as error:
                raise CannotStart(
                    "DataUnavailable", f"{file.name}: the service does not give it ({error})"
                ) from error
            if _hash_file(target) == (file.size_bytes, file.sha256):
                return
        raise CannotStart(
            "StorageUnavailable", f"{file.name}: what arrives has another hash than it should"
        )

    def _download_once(self, file: RemoteFile, target: Path) -> None:
        with target.open("wb") as output:

            def write(piece: bytes) -> None:
                output.write(piece)
                if self._wait(0.0):
                    raise GivenUp(f"{file.name} was being fetched")

            self._link.download(file.url, write)


def describe_run(assignment: Assignment, run: RunFolder, inputs: dict[str, str]) -> dict[str, Any]:
    """Return run.json: what a rank may know of its run."""
    spec, resume = assignment.spec, assignment.resume
    checkpoint = spec.get("checkpoint") or {}
    return {
        "version": 1,
        "job_id": assignment.job_id,
        "attempt_id": run.path.name,
        "attempt_number": assignment.number,
        "job_name": assignment.job_name,
        "rank_dir": None,
        "socket": str(run.socket),
        "spool_dir": str(run.spool),
        "checkpoints_dir": str(run.checkpoints),
        "pulses_dir": str(run.pulses),
        "stacks": {"folder": str(run.stacks), "signal": int(STACK_SIGNAL)},
        "config": spec.get("config") or {},
        "inputs": inputs,
        "parallel": spec.get("parallel") or {},
        "sync": spec.get("sync") or {},
        "outer": _describe_outer(assignment, run),
        "checkpoint": {
            "every_steps": checkpoint.get("every_steps"),
            "every_seconds": checkpoint.get("every_seconds"),
        },
        "health": spec.get("health") or {},
        "interruption": assignment.interruption,
        "resume": None
        if resume is None
        else {
            "checkpoint_id": resume.checkpoint_id,
            "step": resume.step,
            "path": str(run.restored),
        },
    }


def _describe_outer(assignment: Assignment, run: RunFolder) -> dict[str, Any]:
    """Return what keeps the servers of this attempt to its own ranks.

    On one node the ranks need not tell each other a secret: all of them read it here. Servers wait
    for ranks that are started again; when the attempt ends, they are ended in any case.
    """
    known = {"attempt": run.path.name, "grace_s": _SERVERS_WAIT_S}
    return known if assignment.num_nodes > 1 else {**known, "token": secrets.token_hex(32)}


def _hash_file(path: Path) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
            size_bytes += len(block)
    return size_bytes, digest.hexdigest()
