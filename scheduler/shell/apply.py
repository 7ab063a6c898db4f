"""Decisions → guarded updates and events, in one transaction.

A decision that no longer fits the rows dies alone: the next pass sees what is and decides again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never

import structlog
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from models.attempt import Allocation, Attempt, AttemptNode
from models.base import new_id
from models.database import announce
from models.job import Job
from models.node import Node, read_capacity
from models.queries.checkpoints import find_resume_checkpoint
from models.queries.jobs import advance_job, node_topic, record_event
from scheduler.core.cluster import NodeShare
from scheduler.core.decisions import Admit, Decision, Explain, Hold, Start
from scheduler.core.errors import StaleVersion
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources, resolve_request
from scheduler.core.spec import read_spec
from scheduler.core.states import AttemptState, JobEvent

log = structlog.get_logger()


def apply_decisions(
    session: Session, decisions: Sequence[Decision], *, now: datetime, lease: timedelta
) -> int:
    """Write what still fits and return how many gangs were started.

    Args:
        lease: how long the nodes have to answer for a new attempt.
    """
    num_started = 0
    dropped: set[str] = set()
    for decision in decisions:
        if decision.job_id in dropped:
            continue  # it was decided from what the dropped one would have made
        try:
            with session.begin_nested():
                _apply(session, decision, now=now, lease=lease)
                session.flush()
        except (StaleVersion, StaleDataError, IntegrityError) as stale:
            log.info("stale decision dropped", job_id=decision.job_id, cause=type(stale).__name__)
            # What the dropped decision changed in memory must not be seen by the next one.
            session.expire_all()
            dropped.add(decision.job_id)
        else:
            num_started += isinstance(decision, Start)
    return num_started


def _apply(session: Session, decision: Decision, *, now: datetime, lease: timedelta) -> None:
    job = session.get(Job, decision.job_id)
    if job is None or job.version != decision.version:
        raise StaleVersion(f"{decision.job_id} has changed since the pass looked")
    match decision:
        case Admit():
            job.not_before_at = job.not_before_reason = None
            advance_job(
                session,
                job,
                JobEvent.ADMITTED,
                reason=decision.reason,
                message=decision.message,
                now=now,
            )
        case Hold():
            advance_job(
                session,
                job,
                JobEvent.HELD,
                reason=decision.reason,
                message=decision.message,
                now=now,
            )
        case Explain():
            _explain(session, job, decision, now=now)
        case Start():
            _start(session, job, decision, now=now, lease=lease)
        case _:
            assert_never(decision)


def _explain(session: Session, job: Job, decision: Explain, *, now: datetime) -> None:
    is_new = job.reason != decision.reason
    job.reason, job.message = decision.reason, decision.message
    if is_new:  # numbers in the message change with every pass, and are no history
        record_event(session, job, "job.waiting", now=now)


def _start(session: Session, job: Job, decision: Start, *, now: datetime, lease: timedelta) -> None:
    spec = read_spec(job.spec)
    checkpoint = find_resume_checkpoint(session, job)
    job.epoch += 1
    job.num_attempts += 1
    attempt = Attempt(
        id=new_id("att"),
        job_id=job.id,
        number=job.num_attempts,
        epoch=job.epoch,
        state=AttemptState.LAUNCHING,
        resume_checkpoint_id=None if checkpoint is None else checkpoint.id,
        created_at=now,
    )
    session.add(attempt)
    session.flush()
    first_rank = 0
    nodes = []
    for node_rank, share in enumerate(decision.placement.shares):
        node = session.get(Node, share.node_id, populate_existing=True)
        if node is None:
            raise StaleVersion(f"{share.node_id} is gone")
        per_worker = resolve_request(spec.resources, pool_has_gpus=bool(share.gpu_indices))
        _claim(session, node, attempt, share, per_worker)
        ranks = _number_ranks(share, first_rank, per_worker.num_gpus)
        first_rank += share.num_workers
        session.add(
            AttemptNode(
                attempt_id=attempt.id,
                node_id=node.id,
                node_rank=node_rank,
                ranks=ranks,
                lease_expires_at=now + lease,
            )
        )
        nodes.append(node.name)
        announce(session, node_topic(node.id))
    data = {
        "attempt_id": attempt.id,
        "attempt": attempt.number,
        "nodes": nodes,
        "resumes_from": attempt.resume_checkpoint_id,
        "resumes_at_step": None if checkpoint is None else checkpoint.step,
    }
    advance_job(session, job, JobEvent.PLACED, reason=Reason.LAUNCHING, now=now, data=data)


def _claim(
    session: Session, node: Node, attempt: Attempt, share: NodeShare, per_worker: Resources
) -> None:
    """Take the share's slots, or raise when somebody else was faster."""
    taken = per_worker.times(share.num_workers)
    used = Resources(cpu_milli=node.cpu_milli_used, memory_mib=node.memory_mib_used)
    room = read_capacity(node.capacity).minus(used)
    if not taken.fits(room):
        raise StaleVersion(f"{node.id} has no room any more")
    # Two schedulers meet here: the one whose reading is still true wins.
    claimed = session.execute(
        update(Node)
        .where(
            Node.id == node.id,
            Node.cpu_milli_used == used.cpu_milli,
            Node.memory_mib_used == used.memory_mib,
            Node.is_cordoned.is_(False),
        )
        .values(
            cpu_milli_used=used.cpu_milli + taken.cpu_milli,
            memory_mib_used=used.memory_mib + taken.memory_mib,
        )
        .execution_options(synchronize_session=False)
    )
    if claimed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE always gives a cursor result
        raise StaleVersion(f"{node.id} has changed since the pass looked")
    session.add(
        Allocation(
            attempt_id=attempt.id,
            node_id=node.id,
            cpu_milli=taken.cpu_milli,
            memory_mib=taken.memory_mib,
        )
    )
    session.add_all(
        Allocation(attempt_id=attempt.id, node_id=node.id, gpu_index=index)
        for index in share.gpu_indices
    )


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
