"""What the service assigns to a node: one attempt's part, parsed once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.supervisor.environment import RankPlace


@dataclass(frozen=True)
class RemoteFile:
    """Bytes at the service, by hash."""

    url: str
    size_bytes: int
    sha256: str
    name: str


@dataclass(frozen=True)
class InputDir:
    """A folder that the operator has put on the nodes."""

    name: str
    path: str


@dataclass(frozen=True)
class Resume:
    """The checkpoint to go on from. File names are paths below its folder."""

    checkpoint_id: str
    step: int
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Command:
    """What each rank runs: a script of the bundle's, or a module."""

    kind: str
    target: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """One attempt on one node."""

    job_id: str
    job_name: str
    project: str
    number: int
    spec: Mapping[str, Any]
    world_size: int
    node_rank: int
    num_nodes: int
    places: tuple[RankPlace, ...]
    cluster: tuple[tuple[str, tuple[int, ...]], ...]
    rendezvous: Mapping[str, Any] | None
    command: Command
    code: RemoteFile | None
    input_files: tuple[RemoteFile, ...]
    input_dirs: tuple[InputDir, ...]
    python: str | None
    requirements: tuple[str, ...]
    env: Mapping[str, str]
    resume: Resume | None
    interruption: Mapping[str, int] | None
    heartbeat_s: float
    fence_s: float
    grace_s: float


def parse_assignment(value: Mapping[str, Any]) -> Assignment:
    """Return the assignment in the service's answer.

    Raises:
        KeyError, TypeError, ValueError: the answer is not an assignment.
    """
    inputs = value["inputs"]
    environment, timers = value["environment"], value["timers"]
    return Assignment(
        job_id=value["job_id"],
        job_name=value["job_name"],
        project=value["project"],
        number=int(value["number"]),
        spec=value["spec"],
        world_size=int(value["world_size"]),
        node_rank=int(value["node_rank"]),
        num_nodes=int(value["num_nodes"]),
        places=tuple(_parse_place(place) for place in value["ranks"]),
        cluster=tuple((node["address"], tuple(node["ranks"])) for node in value["cluster"]),
        rendezvous=value["rendezvous"],
        command=_parse_command(value["command"]),
        code=_parse_file(value["code"], "filename") if value["code"] else None,
        input_files=tuple(_parse_file(one, "name") for one in inputs if one["kind"] == "file"),
        input_dirs=tuple(
            InputDir(one["name"], one["path"]) for one in inputs if one["kind"] == "dir"
        ),
        python=environment["python"],
        requirements=tuple(environment["requirements"]),
        env={**value["env"], **value["secrets"]},
        resume=_parse_resume(value["resume"]) if value["resume"] else None,
        interruption=value.get("interruption"),
        heartbeat_s=float(timers["heartbeat_seconds"]),
        fence_s=float(timers["fence_seconds"]),
        grace_s=float(timers["grace_seconds"]),
    )


def _parse_place(value: Mapping[str, Any]) -> RankPlace:
    return RankPlace(int(value["rank"]), int(value["local_rank"]), tuple(value["gpu_indices"]))


def _parse_command(value: Mapping[str, Any]) -> Command:
    target = value["path"] if value["kind"] == "script" else value["module"]
    return Command(value["kind"], target, tuple(value["args"]))


def _parse_file(value: Mapping[str, Any], name: str) -> RemoteFile:
    return RemoteFile(value["url"], int(value["size_bytes"]), value["sha256"], value[name])


def _parse_resume(value: Mapping[str, Any]) -> Resume:
    files = tuple(_parse_file(file, "path") for file in value["files"])
    return Resume(value["checkpoint_id"], int(value["step"]), files)
