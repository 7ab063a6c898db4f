"""The job spec: frozen parts, canonical form, content hash. Pure.

Shapes only: what a spec may mean together is in `spec_rules`, what a JSON document may look like
on the wire is in `api.jobs.spec_schema`. `read_spec` trusts its input, `write_spec` gives back the
same document with every default filled in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SyncMode = Literal["allreduce", "local_sgd", "diloco", "parameter_server", "gossip"]
Framework = Literal["torch", "tensorflow", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """What one worker takes. None: the pool decides (one GPU where there are any, one CPU).

    Attributes:
        gpu_models: any of these will do; empty: any model.
        gpu_memory_gib: each GPU has at least this much.
        spread: a gang that one node could hold may be split over several all the same.
    """

    gpus: int | None = None
    cpus: float | None = None
    memory_gib: float | None = None
    gpu_models: tuple[str, ...] = ()
    gpu_memory_gib: float | None = None
    spread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """How one model copy is spread and how many copies there are; the product is `workers`."""

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1

    @property
    def num_workers(self) -> int:
        """Ranks that this layout needs."""
        return self.data * self.replica_size

    @property
    def replica_size(self) -> int:
        """Ranks that one copy of the model is spread over."""
        return self.shard * self.tensor * self.pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """How the replicas are joined."""

    mode: SyncMode = "allreduce"
    every: int | None = None
    compression: str = "none"
    staleness: int | None = None
    servers: int | None = None
    compensation: float | None = None
    outer_lr: float | None = None
    outer_momentum: float | None = None
    fragments: int | None = None
    graph: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRequest:
    """The Python environment of the ranks; empty means the default job environment."""

    python: str | None = None
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepBest:
    """Which checkpoints are kept for their metric."""

    metric: str
    mode: Literal["min", "max"] = "max"
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPolicy:
    """When checkpoints are made and which are kept."""

    every_steps: int | None = None
    every_seconds: float | None = 300.0
    keep_last: int = 2
    keep_best: KeepBest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySpec:
    """How often a job is tried again: its own faults, and those of machines."""

    max_user_failures: int = 0
    max_infra_failures: int = 10
    backoff_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the service stops the job. `gpu_hours` is counted over all attempts."""

    wall_seconds: int | None = None
    gpu_hours: float | None = None
    grace_seconds: int = 30
    on_deadline: Literal["fail", "pause"] = "fail"
    on_budget: Literal["fail", "pause"] = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is done about a job that stalls or diverges."""

    stall_seconds: int = 600
    on_stall: Literal["restart", "fail"] = "restart"
    on_nan: Literal["fail", "ignore"] = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Between how many workers a job may be resized."""

    min_workers: int
    max_workers: int

    def allows(self, num_workers: int) -> bool:
        """Whether a job may have so many."""
        return self.min_workers <= num_workers <= self.max_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One request to train, whole."""

    name: str | None = None
    project: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    recipe: str | None = None
    code: str | None = None
    entrypoint: str | None = None
    args: tuple[str, ...] = ()
    framework: Framework = "torch"
    environment: EnvironmentRequest = EnvironmentRequest()
    config: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    resources: ResourceRequest = ResourceRequest()
    parallel: Parallel | None = None
    sync: Sync = Sync()
    inputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    resume_from: str | None = None
    retry: RetrySpec = RetrySpec()
    limits: Limits = Limits()
    health: Health = Health()
    elastic: Elastic | None = None
    preemptible: bool = True
    privacy: Mapping[str, Any] | None = None
    depends_on: tuple[str, ...] = ()
    begin_at: str | None = None
    hold: bool = False
    priority: int = 50
    queue: str = "default"
    pool: str = "default"

    @property
    def num_workers(self) -> int:
        """Ranks of the gang."""
        if self.workers is not None:
            return self.workers
        return self.parallel.num_workers if self.parallel is not None else 1


def read_spec(document: Mapping[str, Any]) -> JobSpec:
    """Return the spec that a document of the right shape says."""
    return typing.cast(JobSpec, _read(JobSpec, document))


def write_spec(spec: JobSpec) -> dict[str, Any]:
    """Return the document of `spec`, with every default filled in; JSON types only."""
    return typing.cast("dict[str, Any]", _write(spec))


def canonical_json(document: object) -> bytes:
    """Return the one byte string that stands for `document`: sorted keys, no spaces, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def content_hash(document: object) -> str:
    """Return the SHA-256 of the canonical form, in hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        (inner,) = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return _read(inner, value)
    if origin is tuple:
        return tuple(value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast("type[Any]", kind))
        return kind(**{name: _read(hints[name], part) for name, part in value.items()})  # type: ignore[operator]  # `kind` is a dataclass here
    return value


_HINTS: dict[type[Any], dict[str, Any]] = {}


def _hints(kind: type[Any]) -> dict[str, Any]:
    # Resolving string annotations costs 50 times a lookup; a spec is read in every pass.
    found = _HINTS.get(kind)
    if found is None:
        found = _HINTS[kind] = typing.get_type_hints(kind)
    return found


def _write(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {part.name: _write(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_write(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _write(part) for name, part in value.items()}
    return value
