"""What a node runs, and what it should: assignments and stops. Knows no HTTP.

Level-triggered: every heartbeat says all that is wanted, so a lost answer costs one interval.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.attempts.exit import end_node
from api.attempts.fence import Ticket, check_live
from api.attempts.wanted import STALE, decide_wanted, list_nodes
from models import Attempt, AttemptNode, Job
from scheduler.core.errors import StaleAttempt


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Supervised:
    """One supervisor that a node has, had, or should have."""

    attempt_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A supervisor that is wanted down."""

    supervised: Supervised
    reason: str
    grace_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """A supervisor that should renew its lease now: the answer holds a new checkpoint wish."""

    supervised: Supervised
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedHere:
    """All that is wanted of one node."""

    assignments: tuple[Supervised, ...] = ()
    stops: tuple[Stop, ...] = ()
    nudges: tuple[Nudge, ...] = ()


def decide_wanted_here(
    session: Session, node_id: str, supervisors: Collection[Supervised]
) -> WantedHere:
    """Return what is wanted of a node on which these supervisors are alive."""
    assignments: list[Supervised] = []
    stops: list[Stop] = []
    nudges: list[Nudge] = []
    wanted: set[Supervised] = set()
    for node, attempt, job in _list_live(session, node_id):
        here = Supervised(attempt_id=attempt.id, epoch=attempt.epoch)
        wanted.add(here)
        if here not in supervisors:
            assignments.append(here)
            continue
        is_alone = len(node.ranks) == job.num_workers
        peers = [] if is_alone else list_nodes(session, attempt.id)
        decision = decide_wanted(job, [each.outcome for each in peers if each is not node])
        if decision.action == "stop":
            reason = decision.reason or STALE
            stop = Stop(supervised=here, reason=reason, grace_seconds=decision.grace_seconds)
            stops.append(stop)
        elif decision.action == "checkpoint":
            nudges.append(Nudge(supervised=here, serial=decision.serial))
    stops.extend(
        Stop(supervised=each, reason=STALE, grace_seconds=0.0)
        for each in sorted(set(supervisors) - wanted)
    )
    return WantedHere(assignments=tuple(assignments), stops=tuple(stops), nudges=tuple(nudges))


def end_lost(
    session: Session, node_id: str, gone: Supervised, reason: str, message: str, *, now: datetime
) -> None:
    """End the attempt on a node whose daemon has proved that its supervisor is gone.

    What has ended already stays as it is.
    """
    ticket = Ticket(attempt_id=gone.attempt_id, node_id=node_id, epoch=gone.epoch)
    try:
        member = check_live(session, ticket)
    except StaleAttempt:
        return
    record = {"outcome": "lost", "reason": reason, "message": message, "ranks": []}
    end_node(session, member, record, now=now)


def _list_live(session: Session, node_id: str) -> Sequence[tuple[AttemptNode, Attempt, Job]]:
    """Return the attempts that this node should be running, oldest first."""
    rows = session.execute(
        select(AttemptNode, Attempt, Job)
        .join(Attempt, Attempt.id == AttemptNode.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            AttemptNode.node_id == node_id,
            AttemptNode.exited_at.is_(None),
            Attempt.ended_at.is_(None),
        )
        .order_by(Attempt.id)
    )
    return [(node, attempt, job) for node, attempt, job in rows]
