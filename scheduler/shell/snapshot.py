"""Rows → the whole `ClusterView`, as of one instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.core.cluster import ClusterView, NodeView
from scheduler.shell.history import History
from scheduler.shell.job_rows import JobReader
from scheduler.shell.node_rows import read_nodes
from scheduler.shell.rules import read_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How rows are looked at.

    Attributes:
        silence_max: a node that has not been heard for longer gets no new work.
        lease: how long a supervisor's renewal lasts; says when it was heard last.
    """

    silence_max: timedelta
    lease: timedelta


def hold_still(session: Session) -> None:
    """Let all that `session` reads be of one instant; call it first.

    SQLite does so by itself. PostgreSQL would look anew with every statement, and find jobs that
    run beside attempts that have ended.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def read_cluster(
    session: Session, *, now: datetime, sight: Sight, history: History | None = None
) -> ClusterView:
    """Return all that a pass may know, as the database says it now."""
    nodes = read_nodes(session, now=now, silence_max=sight.silence_max)
    rules = read_rules(session, now=now)
    jobs = JobReader(
        session,
        lease=sight.lease,
        history=history or History(as_of=now),
        gpu_pools=list_gpu_pools(nodes),
    ).read_all()
    return ClusterView(
        nodes=nodes, jobs=tuple(jobs), quotas=rules.quotas, usage=rules.usage, queues=rules.queues
    )


def list_gpu_pools(nodes: Iterable[NodeView]) -> frozenset[str]:
    """Return the pools in which a worker gets a GPU unless it says otherwise."""
    return frozenset(node.pool for node in nodes if node.capacity.num_gpus)
