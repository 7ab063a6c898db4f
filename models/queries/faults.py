"""Remembering on which nodes attempts ended for a fault of machines, and what follows for those."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from models.attempt import Attempt, AttemptNode
from models.node import Node, NodeFault
from scheduler.core.quarantine import BLAMED_REASONS, WINDOW, Fault, decide_quarantine
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd


def note_faults(
    session: Session, attempt: Attempt, end: AttemptEnd, *, now: datetime
) -> Sequence[str]:
    """Put the end of an attempt down to the nodes that had the fault, and quarantine them if due.

    Nodes that only stopped because another one had failed are not blamed.

    Returns:
        The nodes that are in quarantine from now on, or for longer than before.
    """
    quarantined = []
    parts = session.scalars(
        select(AttemptNode)
        .where(AttemptNode.attempt_id == attempt.id)
        .order_by(AttemptNode.node_id)
    ).all()
    for part in parts:
        reason = _fault_of(part, end, now)
        if reason is None:
            continue
        session.add(
            NodeFault(
                node_id=part.node_id,
                job_id=attempt.job_id,
                attempt_id=attempt.id,
                reason=reason,
                at=now,
            )
        )
        session.flush()
        if _quarantine_if_due(session, part.node_id, now=now):
            quarantined.append(part.node_id)
    return quarantined


def forget_faults(session: Session, node: Node) -> None:
    """Let the node begin anew: somebody has looked at it."""
    node.quarantined_until = node.quarantine_message = None
    session.execute(delete(NodeFault).where(NodeFault.node_id == node.id))


def _fault_of(part: AttemptNode, end: AttemptEnd, now: datetime) -> str | None:
    if part.exited_at is None:
        # It has not reported, so it is the one that fell silent, unless its lease still runs.
        is_silent = end.outcome == "lost" and part.lease_expires_at < now
        return end.reason or Reason.LEASE_LOST if is_silent else None
    said = (part.exit or {}).get("reason")
    if part.outcome == "lost":
        return said or Reason.LEASE_LOST
    return said if part.outcome == "failed" and said in BLAMED_REASONS else None


def _quarantine_if_due(session: Session, node_id: str, *, now: datetime) -> bool:
    rows = session.execute(
        select(NodeFault.job_id, NodeFault.reason, NodeFault.at).where(
            NodeFault.node_id == node_id, NodeFault.at > now - WINDOW
        )
    )
    faults = [Fault(job_id=row.job_id, reason=row.reason, at=row.at) for row in rows]
    quarantine = decide_quarantine(faults, now=now)
    if quarantine is None:
        return False
    session.execute(
        update(Node)
        .where(Node.id == node_id)
        .values(quarantined_until=quarantine.until, quarantine_message=quarantine.message)
        .execution_options(synchronize_session=False)
    )
    return True
