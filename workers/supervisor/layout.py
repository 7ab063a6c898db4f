"""Where an attempt's things lie on a node, and what the daemon hands over with them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.supervisor.files import find_json, write_json


@dataclass(frozen=True)
class RunFolder:
    """The folder of one attempt, `NODE_DIR/runs/<attempt id>/`, 0700."""

    path: Path

    @property
    def handover(self) -> Path:
        """What the daemon hands over: address, token, paths. 0600."""
        return self.path / "assignment.json"

    @property
    def identity(self) -> Path:
        """Which process supervises: pid, start ticks, boot id."""
        return self.path / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def exit_record(self) -> Path:
        """What became of the attempt; written before it is reported."""
        return self.path / "exit.json"

    @property
    def run_file(self) -> Path:
        """What a rank may know of its run."""
        return self.path / "run.json"

    @property
    def socket(self) -> Path:
        """Where ranks reach their supervisor."""
        return self.path / "s.sock"

    @property
    def code(self) -> Path:
        """The user's files; the ranks' working folder."""
        return self.path / "code"

    @property
    def inputs(self) -> Path:
        """The job's inputs by name."""
        return self.path / "inputs"

    @property
    def home(self) -> Path:
        """The ranks' HOME."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """The ranks' TMPDIR."""
        return self.path / "tmp"

    @property
    def logs(self) -> Path:
        """`<rank>.stdout` and `<rank>.stderr`."""
        return self.path / "logs"

    @property
    def spool(self) -> Path:
        """`<rank>.jsonl`: the metrics a rank has logged."""
        return self.path / "spool"

    @property
    def pulses(self) -> Path:
        """`<rank>`: the page of numbers that a rank writes while it trains."""
        return self.path / "pulses"

    @property
    def stacks(self) -> Path:
        """`<rank>`: where a rank's threads stood whenever somebody asked."""
        return self.path / "stacks"

    @property
    def reports(self) -> Path:
        """What the supervisor has to report, a line each."""
        return self.path / "reports.jsonl"

    @property
    def checkpoints(self) -> Path:
        """`tmp-*` while ranks write, `ready-*` once committed here."""
        return self.path / "checkpoints"

    @property
    def restored(self) -> Path:
        """The checkpoint to resume from, verified."""
        return self.path / "restored"

    def log(self, rank: int, stream: str) -> Path:
        """Return the file of a rank's `stdout` or `stderr`."""
        return self.logs / f"{rank}.{stream}"

    def pulse(self, rank: int) -> Path:
        """Return the page of a rank."""
        return self.pulses / str(rank)

    @property
    def is_lost(self) -> bool:
        """Whether the folder, or what the daemon put there, was removed or replaced."""
        return not (_is_kind(self.path, stat.S_IFDIR) and _is_kind(self.handover, stat.S_IFREG))

    def is_damaged(self) -> bool:
        """Say whether a job has removed or replaced what `make` and the supervisor put there."""
        folders = (self.logs, self.spool, self.checkpoints)
        return (
            self.is_lost
            or not all(_is_kind(folder, stat.S_IFDIR) for folder in folders)
            or not all(_is_kind(file, stat.S_IFREG) for file in self._iter_records())
        )

    def _iter_records(self) -> Iterator[Path]:
        yield from self.logs.glob("*.std*")
        yield from self.spool.glob("*.jsonl")

    def make(self) -> None:
        """Make the folders a run needs; those that are there stay."""
        for folder in (
            self.code, self.inputs, self.home, self.tmp, self.logs, self.spool, self.checkpoints,
            self.pulses, self.stacks,
        ):  # fmt: skip
            folder.mkdir(mode=0o700, exist_ok=True)


def _is_kind(path: Path, kind: int) -> bool:
    try:
        return stat.S_IFMT(path.lstat().st_mode) == kind
    except OSError:
        return False


@dataclass(frozen=True)
class Handover:
    """What the daemon tells a supervisor in assignment.json."""

    url: str
    token: str
    attempt_id: str
    epoch: int
    node_id: str
    node_dir: Path
    job_python: Path
    preloader: Path
    library: Path
    preloader_version: str
    cgroup_root: Path | None
    heartbeat_s: float
    fence_s: float
    orphan_s: float

    @classmethod
    def read(cls, run: RunFolder) -> Handover:
        """Read what was handed over.

        Raises:
            ValueError: it is missing or damaged.
        """
        value = find_json(run.handover)
        if value is None:
            raise ValueError(f"{run.handover} is missing or damaged")
        try:
            return cls._parse(value)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{run.handover} is incomplete: {error}") from error

    @classmethod
    def _parse(cls, value: dict[str, Any]) -> Handover:
        return cls(
            url=value["url"],
            token=value["token"],
            attempt_id=value["attempt_id"],
            epoch=int(value["epoch"]),
            node_id=value["node_id"],
            node_dir=Path(value["node_dir"]),
            job_python=Path(value["job_python"]),
            preloader=Path(value["preloader"]),
            library=Path(value["library"]),
            preloader_version=value["preloader_version"],
            cgroup_root=Path(value["cgroup_root"]) if value["cgroup_root"] else None,
            heartbeat_s=float(value["heartbeat_seconds"]),
            fence_s=float(value["fence_seconds"]),
            orphan_s=float(value["orphan_seconds"]),
        )

    @property
    def zygote(self) -> Path:
        """The socket of the supervisors' fork server, one per version of the library."""
        return self.library.with_suffix(".sock")

    def preloader_socket(self, project: str) -> Path:
        """Return the socket of a project's preloader, one per version of what it has loaded."""
        folder = NodeFolder(self.node_dir).preloaders
        return folder / f"{project.replace('/', '_')}-{self.preloader_version}.sock"

    def write(self, run: RunFolder) -> None:
        """Write it into the run folder."""
        write_json(
            run.handover,
            {
                "url": self.url,
                "token": self.token,
                "attempt_id": self.attempt_id,
                "epoch": self.epoch,
                "node_id": self.node_id,
                "node_dir": str(self.node_dir),
                "job_python": str(self.job_python),
                "preloader": str(self.preloader),
                "library": str(self.library),
                "preloader_version": self.preloader_version,
                "cgroup_root": str(self.cgroup_root) if self.cgroup_root else None,
                "heartbeat_seconds": self.heartbeat_s,
                "fence_seconds": self.fence_s,
                "orphan_seconds": self.orphan_s,
            },
        )


@dataclass(frozen=True)
class NodeFolder:
    """The node's own folder, NODE_DIR."""

    path: Path

    @property
    def daemon_lock(self) -> Path:
        """Held by the daemon for as long as it lives."""
        return self.path / "daemon.lock"

    @property
    def credential(self) -> Path:
        """Who this node is at the service. 0600."""
        return self.path / "credential.json"

    @property
    def trash(self) -> Path:
        """Folders that are being removed."""
        return self.path / "trash"

    @property
    def kept(self) -> Path:
        """Folders of failed runs that are kept for a look."""
        return self.path / "kept"

    @property
    def runs(self) -> Path:
        """One folder per attempt."""
        return self.path / "runs"

    @property
    def cached_files(self) -> Path:
        """Code and inputs by SHA-256."""
        return self.path / "cache" / "files"

    @property
    def environments(self) -> Path:
        """Virtual environments by the hash of what is in them."""
        return self.path / "environments"

    @property
    def preloaders(self) -> Path:
        """The sockets of the projects' preloaders."""
        return self.path / "preloaders"
