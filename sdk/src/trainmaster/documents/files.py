"""Checkpoints and uploaded files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster.documents.values import Resource, empty, instant


@dataclass(frozen=True, kw_only=True)
class CheckpointFile(Resource):
    """One file of a checkpoint: where below it, how large, and its SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Resource):
    """A saved state of a job; it exists as a whole once `state` is `committed`."""

    id: str
    job_id: str = ""
    attempt_id: str = ""
    attempt: int = 1
    step: int | None = None
    metrics: Mapping[str, Any] = empty(dict)
    state: str = ""
    size_bytes: int = 0
    files: list[CheckpointFile] = field(
        default_factory=list,
        metadata={"convert": lambda files: [CheckpointFile.parse(file) for file in files]},
    )
    pinned: bool = False
    created_at: datetime | None = instant()


@dataclass(frozen=True, kw_only=True)
class File(Resource):
    """An uploaded file: code of a job, or an input."""

    id: str
    filename: str = ""
    purpose: str = ""
    size_bytes: int = 0
    sha256: str = ""
    created_at: datetime | None = instant()
