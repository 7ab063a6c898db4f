"""What has been seen since the last pass. Pure.

Each delta is the present truth about one thing, not a change of it: one that comes twice, late or
out of order changes nothing but latency. `Observed` replaces everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.cluster import ClusterView, JobView, NodeView, QueueView, QuotaView, UsageView


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The whole view, as the database has it now."""

    view: ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job that waits or holds places; a version smaller than the known one is ignored."""

    job: JobView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGone:
    """The job has ended, is paused, or was removed."""

    job_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """A node that has joined, changed or come back."""

    node: NodeView


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """The node was removed."""

    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesSeen:
    """All quotas, queues and usage, as they are now."""

    quotas: tuple[QuotaView, ...] = ()
    usage: tuple[UsageView, ...] = ()
    queues: tuple[QueueView, ...] = ()


Delta = Observed | JobSeen | JobGone | NodeSeen | NodeGone | RulesSeen
