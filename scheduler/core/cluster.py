"""What a pass sees: nodes with their room, jobs that wait. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.resources import Resources
from scheduler.core.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One machine: what it has, what is free, whether new work may go there."""

    node_id: str
    pool: str
    capacity: Resources
    free: Resources
    free_gpu_indices: tuple[int, ...] = ()
    is_schedulable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job that has no attempt and is not paused.

    Attributes:
        sequence: submit order; smaller came first.
        not_before_ms: earliest start (begin_at, retry back-off), 0 when there is none.
        not_before_reason: what that instant is, shown while it lies ahead.
        per_worker: what each worker takes.
    """

    job_id: str
    version: int
    state: JobState
    sequence: int
    priority: int
    pool: str
    num_workers: int
    per_worker: Resources
    is_held: bool = False
    not_before_ms: int = 0
    not_before_reason: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything a pass may know."""

    nodes: tuple[NodeView, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """The part of a gang that one node runs."""

    node_id: str
    num_workers: int
    gpu_indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A whole gang, node by node; ranks are numbered in this order."""

    shares: tuple[NodeShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """Why a gang cannot be placed now."""

    reason: str
    message: str
