"""Who may write for an attempt: its own supervisor, while the attempt is live. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from models import Attempt, AttemptNode, Job
from scheduler.core.errors import StaleAttempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What an attempt token says: this attempt, on this node, in this epoch."""

    attempt_id: str
    node_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The rows behind a ticket."""

    job: Job
    attempt: Attempt
    node: AttemptNode


def find_membership(session: Session, ticket: Ticket) -> Membership:
    """Return the rows that the ticket names, of a live attempt or an ended one.

    Raises:
        StaleAttempt: there is no such attempt, or none of this epoch on this node.
    """
    # Locked on PostgreSQL: what the supervisors of one attempt write is in one order, and ending
    # the attempt is before or after it. A KEY SHARE of foreign keys passes.
    attempt = session.get(Attempt, ticket.attempt_id, with_for_update={"key_share": True})
    node = session.get(AttemptNode, (ticket.attempt_id, ticket.node_id))
    if attempt is None or node is None or attempt.epoch != ticket.epoch:
        raise StaleAttempt(ticket.attempt_id)
    job = session.get(Job, attempt.job_id)
    if job is None:
        raise StaleAttempt(ticket.attempt_id)
    return Membership(job=job, attempt=attempt, node=node)


def check_live(session: Session, ticket: Ticket) -> Membership:
    """Return the rows that the ticket names, if its supervisor may still write.

    To be called inside the transaction that writes.

    Raises:
        StaleAttempt: the attempt has ended, was replaced, or this node has already reported.
    """
    found = find_membership(session, ticket)
    is_current = found.attempt.ended_at is None and found.job.epoch == ticket.epoch
    if not is_current or found.node.exited_at is not None:
        raise StaleAttempt(ticket.attempt_id)
    return found
