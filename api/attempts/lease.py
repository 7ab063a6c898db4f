"""Renewing a lease: the supervisor says how it goes, and hears what is wanted. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from api.attempts.wanted import Wanted, decide_wanted, list_nodes
from models import AttemptNode, announce
from models.queries.attempts import advance_attempt
from models.queries.jobs import advance_job, job_topic, node_topic, record_event
from scheduler.core.reasons import Reason
from scheduler.core.states import AttemptEvent, AttemptState, JobEvent, JobState

Phase = Literal["staging", "starting", "running", "stopping", "finalizing"]

# What the job shows while it starts; it never goes back to an earlier one.
_STARTING_REASONS = [Reason.LAUNCHING, Reason.STAGING, Reason.RENDEZVOUS]
_REASON_BY_PHASE = {"staging": Reason.STAGING, "starting": Reason.RENDEZVOUS}
_JOINED_PHASES = frozenset({"running", "finalizing"})
_ENDED_PHASES = frozenset({"finalizing", "exited"})
_MAY_END = frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a supervisor says of its node with a renewal.

    Attributes:
        progress: {"step", "total_steps", "steps_per_second"}, None when there is nothing new.
        ranks: [{"rank", "pid", "state"}].
        rendezvous: {"address", "port"} where the ranks of all nodes meet, from node rank 0.
    """

    phase: Phase
    message: str | None
    progress: dict[str, Any] | None
    ranks: list[dict[str, Any]]
    rendezvous: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer to a renewal."""

    wanted: Wanted
    rendezvous: dict[str, Any] | None


def renew_lease(
    session: Session, member: Membership, report: Report, *, now: datetime, lease: timedelta
) -> Renewal:
    """Prolong the lease of a live attempt on one node, and take the job where the report leads."""
    job, attempt, node = member.job, member.attempt, member.node
    node.lease_expires_at = now + lease
    node.phase = report.phase
    node.workers = list(report.ranks)
    if report.progress is not None and report.progress != attempt.progress:
        attempt.progress = report.progress
        announce(session, job_topic(job.id))
    nodes = [node] if _is_alone(member) else list_nodes(session, attempt.id)
    if report.rendezvous is not None and node.node_rank == 0:
        _meet(session, member, report.rendezvous, nodes)
    _follow_phase(session, member, report, nodes, now=now)
    peers = [peer.outcome for peer in nodes if peer.node_id != node.node_id]
    return Renewal(wanted=decide_wanted(job, peers), rendezvous=attempt.rendezvous)


def _is_alone(member: Membership) -> bool:
    return len(member.node.ranks) == member.job.num_workers


def _meet(
    session: Session, member: Membership, rendezvous: dict[str, Any], nodes: Sequence[AttemptNode]
) -> None:
    if member.attempt.rendezvous == rendezvous:
        return
    member.attempt.rendezvous = rendezvous
    announce(session, *(node_topic(each.node_id) for each in nodes))


def _follow_phase(
    session: Session,
    member: Membership,
    report: Report,
    nodes: Sequence[AttemptNode],
    *,
    now: datetime,
) -> None:
    job, attempt = member.job, member.attempt
    phases = {each.phase for each in nodes}
    # Ranks that were never started have not joined: a failed set-up goes to finalizing as well.
    has_joined = phases <= _JOINED_PHASES and bool(report.ranks)
    if attempt.state is AttemptState.LAUNCHING and has_joined:
        advance_attempt(attempt, AttemptEvent.JOINED)
        attempt.started_at = now
        if job.state is JobState.STARTING:
            data = {"attempt_id": attempt.id, "attempt": attempt.number}
            advance_job(session, job, JobEvent.JOINED, reason=Reason.TRAINING, now=now, data=data)
    if phases & {"stopping", "finalizing"}:
        advance_attempt(attempt, AttemptEvent.DRAINED)
    if phases <= _ENDED_PHASES and job.state in _MAY_END:
        reason = Reason.UPLOADING_ARTIFACTS
        advance_job(session, job, JobEvent.CODE_ENDED, reason=reason, now=now)
    _explain_start(session, member, report, now=now)


def _explain_start(session: Session, member: Membership, report: Report, *, now: datetime) -> None:
    """Say what a job that starts is doing; once for each step on the way."""
    job = member.job
    reason = _REASON_BY_PHASE.get(report.phase)
    if job.state is not JobState.STARTING or reason is None:
        return
    known = [str(each) for each in _STARTING_REASONS]
    if job.reason in known and known.index(job.reason) >= known.index(reason):
        return
    job.reason, job.message = reason, report.message or ""
    data = {"attempt_id": member.attempt.id, "attempt": member.attempt.number}
    record_event(session, job, f"attempt.{report.phase}", now=now, data=data)
