"""What is wanted of a supervisor now: go on, save, or stop. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import AttemptNode, Job

PEER_FAILED = "PeerFailed"
"""Another node of the gang has failed, so the whole attempt ends."""

STALE = "Stale"
"""The attempt has ended or was replaced."""

_ENDS_THE_GANG = frozenset({"failed", "lost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a supervisor shall do.

    Attributes:
        serial: how often a checkpoint has been asked for; each new number is one wish.
    """

    action: Literal["run", "checkpoint", "stop"]
    reason: str | None
    grace_seconds: float
    serial: int


def decide_wanted(job: Job, peer_outcomes: Iterable[str | None]) -> Wanted:
    """Return what a node's supervisor shall do.

    Args:
        peer_outcomes: how the other nodes of the attempt have ended, None for those that run.
    """
    reason = job.stop_reason
    if reason is None and any(outcome in _ENDS_THE_GANG for outcome in peer_outcomes):
        reason = PEER_FAILED
    grace_seconds = float(job.spec["limits"]["grace_seconds"])
    serial = job.checkpoint_serial
    if reason is not None:
        return Wanted(action="stop", reason=reason, grace_seconds=grace_seconds, serial=serial)
    action: Literal["run", "checkpoint"] = "checkpoint" if serial > 0 else "run"
    return Wanted(action=action, reason=None, grace_seconds=grace_seconds, serial=serial)


def list_nodes(session: Session, attempt_id: str) -> Sequence[AttemptNode]:
    """Return the nodes of an attempt, in the order of their node ranks."""
    statement = (
        select(AttemptNode)
        .where(AttemptNode.attempt_id == attempt_id)
        .order_by(AttemptNode.node_rank)
    )
    return session.scalars(statement).all()
