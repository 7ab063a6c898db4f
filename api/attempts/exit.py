"""The end of an attempt on one node, and of the whole when it was the last. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from api.attempts.fence import Membership, Ticket, find_membership
from api.attempts.wanted import list_nodes
from models import Attempt, AttemptNode, Job, announce
from models.queries.attempts import advance_attempt, end_attempt
from models.queries.jobs import advance_job, job_topic, node_topic
from models.queries.verifications import find_interruption
from scheduler.core.errors import StaleAttempt
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd, Outcome
from scheduler.core.states import AttemptEvent, AttemptState, JobEvent, JobState

_RANKING: tuple[Outcome, ...] = ("failed", "lost", "stopped", "succeeded")
_ANSWER = "job_state"


def report_exit(session: Session, ticket: Ticket, record: dict[str, Any], *, now: datetime) -> str:
    """Keep the exit record of a supervisor and return the state the job was in right after.

    The same report again changes nothing and gets the same answer, even after the attempt is over.

    Args:
        record: outcome, reason, message and ranks, as the protocol has them.

    Raises:
        StaleAttempt: the attempt ended without this report, or was replaced.
    """
    member = find_membership(session, ticket)
    if member.node.exit is not None and _ANSWER in member.node.exit:
        return str(member.node.exit[_ANSWER])
    is_current = member.attempt.ended_at is None and member.job.epoch == ticket.epoch
    if not is_current or member.node.exited_at is not None:
        raise StaleAttempt(ticket.attempt_id)
    record = _own_up(session, member.attempt, record)
    end_node(session, member, record, now=now)
    # Kept with the record: a repeated report is answered as the first one was.
    member.node.exit = {**record, _ANSWER: member.job.state.value}
    return member.job.state.value


def end_node(
    session: Session, member: Membership, record: dict[str, Any], *, now: datetime
) -> None:
    """Note that the attempt has ended on one node; end it altogether when that was the last."""
    job, attempt, node = member.job, member.attempt, member.node
    node.phase, node.outcome, node.exited_at = "exited", record["outcome"], now
    node.exit = record
    _note_last_step(attempt, record["ranks"])
    nodes = list_nodes(session, attempt.id)
    if all(each.exited_at is not None for each in nodes):
        _note_start(session, member, nodes, now=now)
        end_attempt(session, attempt, _combine(nodes, job), now=now)
        return
    if record["outcome"] in {"failed", "lost"}:
        # The others are told to stop; the attempt is over when they have.
        topics = [node_topic(each.node_id) for each in nodes if each.exited_at is None]
        announce(session, job_topic(job.id), *topics)


def _own_up(session: Session, attempt: Attempt, record: dict[str, Any]) -> dict[str, Any]:
    """Say so where a rank was killed because we wanted it: its supervisor cannot tell by whom."""
    if record["reason"] != Reason.RANK_KILLED or find_interruption(session, attempt) is None:
        return record
    step = max((rank.get("last_step") or 0 for rank in record["ranks"]), default=0)
    message = f"killed at step {step}, on purpose: to verify that the job resumes"
    return {**record, "reason": Reason.KILLED_TO_VERIFY.value, "message": message}


def _note_start(
    session: Session, member: Membership, nodes: Sequence[AttemptNode], *, now: datetime
) -> None:
    """Ranks that ended before the first renewal have run all the same."""
    job, attempt = member.job, member.attempt
    ranks = [rank for node in nodes for rank in (node.exit or {}).get("ranks", ())]
    has_run = any(rank.get("code") is not None or rank.get("signal") is not None for rank in ranks)
    if job.state is not JobState.STARTING or not has_run:
        return
    if attempt.state is AttemptState.LAUNCHING:
        advance_attempt(attempt, AttemptEvent.JOINED)
    attempt.started_at = now
    data = {"attempt_id": attempt.id, "attempt": attempt.number}
    advance_job(session, job, JobEvent.JOINED, reason=Reason.TRAINING, now=now, data=data)


def _note_last_step(attempt: Attempt, ranks: Sequence[dict[str, Any]]) -> None:
    """The last renewal may be older than the last steps."""
    steps = [rank["last_step"] for rank in ranks if rank.get("last_step") is not None]
    known = (attempt.progress or {}).get("step")
    if steps and (known is None or max(steps) > known):
        blank = {"total_steps": None, "steps_per_second": None}
        attempt.progress = {**blank, **(attempt.progress or {}), "step": max(steps)}


def _combine(nodes: Sequence[AttemptNode], job: Job) -> AttemptEnd:
    """One end out of many: the worst outcome, told by the node that had it first."""
    worst = min(
        nodes, key=lambda node: (_RANKING.index(_outcome(node)), node.exited_at, node.node_rank)
    )
    record = worst.exit or {}
    return AttemptEnd(
        outcome=_outcome(worst),
        reason=record.get("reason"),
        message=record.get("message"),
        stop_reason=job.stop_reason,
    )


def _outcome(node: AttemptNode) -> Outcome:
    return next(outcome for outcome in _RANKING if outcome == node.outcome)
