"""Decisions → guarded updates and events, in one transaction.

A decision that no longer fits the rows dies alone: the next pass is told what is, and decides
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from models.attempt import Allocation, Attempt, AttemptNode
from models.base import new_id
from models.queries.jobs import node_topic
from scheduler.core.cluster import NodeShare
from scheduler.core.decisions import (
    Admit,
    Decision,
    Explain,
    Hold,
    Keep,
    Preempt,
    Reserve,
    Start,
)
from scheduler.core.errors import IllegalTransition, StaleVersion
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources, resolve_request
from scheduler.core.spec import ResourceRequest
from scheduler.core.states import AttemptState, JobEvent, JobState
from scheduler.shell.documents import write_claim, write_reservation
from scheduler.shell.drafts import Drafts, JobDraft, NodeDraft, read_drafts

log = structlog.get_logger()

_STOPPABLE = frozenset({JobState.STARTING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of decisions.

    Attributes:
        num_started: gangs that have their slots now.
        dropped: jobs of which a decision did not fit any more; the core believes otherwise.
    """

    num_started: int = 0
    dropped: frozenset[str] = frozenset()


def apply_decisions(
    session: Session, decisions: Sequence[Decision], *, now: datetime, lease: timedelta
) -> Applied:
    """Write what still fits.

    Args:
        decisions: all that a pass has decided about each of their jobs, in its order.
        lease: how long the nodes have to answer for a new attempt.
    """
    try:
        with session.begin_nested():
            return _apply_together(session, decisions, now=now, lease=lease)
    except (StaleDataError, IntegrityError) as overtaken:
        cause = type(overtaken).__name__
        log.info("batch overtaken; its jobs one by one", size=len(decisions), cause=cause)
    num_started, dropped = 0, set[str]()
    for job_id, own in _group(decisions).items():
        if any(isinstance(each, Preempt) and each.for_job in dropped for each in own):
            dropped.add(job_id)
            continue
        try:
            with session.begin_nested():
                applied = _apply_together(session, own, now=now, lease=lease)
        except (StaleDataError, IntegrityError) as overtaken:
            _log_dropped(job_id, overtaken)
            dropped.add(job_id)
        else:
            num_started += applied.num_started
            dropped |= applied.dropped
    return Applied(num_started=num_started, dropped=frozenset(dropped))


def _group(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    groups: dict[str, list[Decision]] = {}
    for decision in decisions:
        groups.setdefault(decision.job_id, []).append(decision)
    return groups


def _log_dropped(job_id: str, cause: Exception) -> None:
    log.info("stale decision dropped", job_id=job_id, cause=type(cause).__name__)


def _apply_together(
    session: Session, decisions: Sequence[Decision], *, now: datetime, lease: timedelta
) -> Applied:
    starts = [decision for decision in decisions if isinstance(decision, Start)]
    drafts = read_drafts(
        session,
        job_ids={decision.job_id for decision in decisions},
        starting_ids={start.job_id for start in starts},
        stopping_ids={each.job_id for each in decisions if isinstance(each, Preempt)},
        node_ids={share.node_id for start in starts for share in start.placement.shares},
    )
    batch = _Batch(drafts, now=now, lease=lease)
    num_started = 0
    dropped = _find_overtaken(drafts, decisions)
    for decision in decisions:
        if decision.job_id in dropped:
            continue  # it was decided from what the dropped one would have made
        if isinstance(decision, Preempt) and decision.for_job in dropped:
            dropped.add(decision.job_id)  # nobody goes for one who does not come
            continue
        try:
            batch.apply(decision)
        except (StaleVersion, IllegalTransition) as stale:
            _log_dropped(decision.job_id, stale)
            dropped.add(decision.job_id)
        else:
            num_started += isinstance(decision, Start)
    drafts.write(session)
    return Applied(num_started=num_started, dropped=frozenset(dropped))


def _find_overtaken(drafts: Drafts, decisions: Iterable[Decision]) -> set[str]:
    """Return the jobs that are not as the pass saw them, or are being changed just now."""
    overtaken: set[str] = set()
    for job_id, own in _group(decisions).items():
        job = drafts.jobs.get(job_id)
        if job is None or job.version != own[0].version:
            log.info("stale decision dropped", job_id=job_id, cause="StaleVersion")
            overtaken.add(job_id)
    return overtaken


class _Batch:
    """Applies decisions to drafts. One that raises has changed nothing."""

    def __init__(self, drafts: Drafts, *, now: datetime, lease: timedelta) -> None:
        self._drafts, self._now, self._lease = drafts, now, lease
        self._next_versions: dict[str, int] = {}

    def apply(self, decision: Decision) -> None:
        """Change the drafts as `decision` says.

        Raises:
            StaleVersion: the job or a node is not as the pass saw it.
            IllegalTransition: the job's state does not allow it.
        """
        job = self._find(decision)
        match decision:
            case Admit():
                self._advance(job, JobEvent.ADMITTED, decision)
                job.not_before_at = job.not_before_reason = None
                job.waiting_since_at = self._now
            case Hold():
                self._advance(job, JobEvent.HELD, decision)
            case Explain():
                self._explain(job, decision)
            case Start():
                self._start(job, decision)
            case Preempt():
                self._preempt(job, decision)
            case Keep():
                self._keep(job, decision)
            case Reserve():
                self._reserve(job, decision)
            case _:
                assert_never(decision)
        self._next_versions[job.id] = decision.version + 1

    def _find(self, decision: Decision) -> JobDraft:
        job = self._drafts.jobs[decision.job_id]
        # A decision that wrote no event leaves a smaller version behind than the pass counts on.
        expected = {job.version, self._next_versions.get(job.id, job.version)}
        if decision.version not in expected:
            raise StaleVersion(f"{decision.job_id} has changed since the pass looked")
        return job

    def _advance(self, job: JobDraft, event: JobEvent, decision: Admit | Hold) -> None:
        self._drafts.advance(
            job, event, reason=decision.reason, message=decision.message, now=self._now
        )

    def _explain(self, job: JobDraft, decision: Explain) -> None:
        is_new = job.reason != decision.reason
        job.reason, job.message = decision.reason, decision.message
        self._drafts.touch(job)
        if is_new:  # numbers in the message change with every pass, and are no history
            self._drafts.record(job, "job.waiting", now=self._now)

    def _preempt(self, job: JobDraft, decision: Preempt) -> None:
        if job.state not in _STOPPABLE:
            raise StaleVersion(f"{job.id} is {job.state} and makes room anyhow")
        is_moved = decision.reason in {Reason.MIGRATED, Reason.MIGRATING}
        reason = Reason.MIGRATING if is_moved else Reason.PREEMPTING
        data = {"for_job": decision.for_job, "lost_gpu_ms": decision.lost_gpu_ms}
        self._drafts.advance(job, JobEvent.STOP_ASKED, reason=reason, now=self._now, data=data)
        job.stop_reason = reason
        self._drafts.tell(*map(node_topic, self._drafts.nodes_of.get(job.id, ())))

    def _keep(self, job: JobDraft, decision: Keep) -> None:
        claim = None if decision.claim is None else write_claim(decision.claim)
        if claim == job.claim:
            return
        job.claim = claim
        kind = "job.places_released" if claim is None else "job.places_kept"
        self._drafts.record(job, kind, now=self._now, data=claim)

    def _reserve(self, job: JobDraft, decision: Reserve) -> None:
        before = job.reservation
        after = None if decision.reservation is None else write_reservation(decision.reservation)
        if after == before:
            return
        job.reservation = after
        kind = "job.reserved" if before is None else "job.reservation_moved"
        if after is None:
            kind = "job.reservation_withdrawn"
        data = {
            "cause": decision.cause,
            "start_ms": None if after is None else after["start_ms"],
            "start_ms_before": None if before is None else before["start_ms"],
            "node_ids": [] if after is None else after["node_ids"],
        }
        self._drafts.record(job, kind, now=self._now, data=data)

    def _start(self, job: JobDraft, decision: Start) -> None:
        if job.state is not JobState.QUEUED:
            raise StaleVersion(f"{job.id} is {job.state} and does not wait for slots")
        shares = [
            (share, self._find_room(job, share), _per_worker(job, share))
            for share in decision.placement.shares
        ]
        checkpoint = self._drafts.resumables.get(job.id)
        job.epoch += 1
        job.num_attempts += 1
        job.claim = job.reservation = None
        attempt_id = new_id("att")
        resumes_from = None if checkpoint is None else checkpoint.checkpoint_id
        self._drafts.add(
            Attempt,
            id=attempt_id,
            job_id=job.id,
            number=job.num_attempts,
            epoch=job.epoch,
            state=AttemptState.LAUNCHING,
            resume_checkpoint_id=resumes_from,
            created_at=self._now,
        )
        first_rank = 0
        for node_rank, (share, node, per_worker) in enumerate(shares):
            self._claim(attempt_id, node, share, per_worker)
            self._drafts.add(
                AttemptNode,
                attempt_id=attempt_id,
                node_id=node.id,
                node_rank=node_rank,
                ranks=_number_ranks(share, first_rank, per_worker.num_gpus),
                phase="assigned",
                lease_expires_at=self._now + self._lease,
            )
            first_rank += share.num_workers
        data = {
            "attempt_id": attempt_id,
            "attempt": job.num_attempts,
            "nodes": [node.name for _, node, _ in shares],
            "resumes_from": resumes_from,
            "resumes_at_step": None if checkpoint is None else checkpoint.step,
        }
        self._drafts.advance(
            job, JobEvent.PLACED, reason=Reason.LAUNCHING, now=self._now, data=data
        )

    def _find_room(self, job: JobDraft, share: NodeShare) -> NodeDraft:
        """Return the node of `share`, or raise when somebody else was faster."""
        node = self._drafts.nodes.get(share.node_id)
        if node is None:
            raise StaleVersion(f"{share.node_id} is gone")
        taken = _per_worker(job, share).times(share.num_workers)
        has_gpus = len(share.gpu_indices) == taken.num_gpus and node.free_gpus.issuperset(
            share.gpu_indices
        )
        if not node.is_open or not has_gpus or not taken.fits(node.room.minus(node.used)):
            raise StaleVersion(f"{node.id} has no room any more")
        return node

    def _claim(
        self, attempt_id: str, node: NodeDraft, share: NodeShare, per_worker: Resources
    ) -> None:
        taken = per_worker.times(share.num_workers)
        self._drafts.take(node, taken, share.gpu_indices)
        place = {"attempt_id": attempt_id, "node_id": node.id}
        self._drafts.add(
            Allocation,
            **place,
            gpu_index=None,
            cpu_milli=taken.cpu_milli,
            memory_mib=taken.memory_mib,
        )
        for index in share.gpu_indices:
            self._drafts.add(Allocation, **place, gpu_index=index, cpu_milli=0, memory_mib=0)


def _per_worker(job: JobDraft, share: NodeShare) -> Resources:
    request = ResourceRequest(
        gpus=job.request_gpus,
        cpus=None if job.request_cpu_milli is None else job.request_cpu_milli / 1000,
        memory_gib=None if job.request_memory_mib is None else job.request_memory_mib / 1024,
    )
    return resolve_request(request, pool_has_gpus=bool(share.gpu_indices))


def _number_ranks(share: NodeShare, first_rank: int, gpus_per_worker: int) -> list[Any]:
    return [
        {
            "rank": first_rank + local_rank,
            "local_rank": local_rank,
            "gpu_indices": list(
                share.gpu_indices[local_rank * gpus_per_worker : (local_rank + 1) * gpus_per_worker]
            ),
        }
        for local_rank in range(share.num_workers)
    ]
