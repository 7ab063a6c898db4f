"""Taking a verification one step further. Right at any time and when run twice.

What is due follows from the rows alone: the reference runs, then the job that is killed, then
both are compared. A restart of the service between any two lines loses nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs.desk import Desk
from api.jobs.submit import read_spotless, store_job
from api.storage import LocalStorage
from api.verification.evidence import find_final, find_killed_step, gather_evidence
from api.verification.plan import plan_interrupted, plan_interruption
from api.verification.verdict import Evidence, Finding, Why, decide, refused, unknown
from models import Checkpoint, Job, Project, Role, Verification
from models.queries.verifications import finish, touch
from scheduler.core.errors import InvalidSpec
from scheduler.core.states import JobState

_FILES_SHOWN_MAX = 100


def carry_on(desk: Desk, storage: LocalStorage, verification_id: str, *, now: datetime) -> bool:
    """Do what is due for one verification; return whether something was.

    Raises:
        StaleDataError: another process was faster; look again.
    """
    with desk.database.read() as session:
        verification = session.get_one(Verification, verification_id)
        if verification.finished_at is not None:
            return False
        reference = session.get(Job, verification.reference_job_id)
        finding = _judge_end(reference, "uninterrupted")
        if finding is not None:
            return _finish(desk, verification, finding, now=now)
        assert reference is not None
        if reference.state is not JobState.SUCCEEDED:
            return False
        final = find_final(session, reference)
        if final is None:
            message = f"{reference.id} has ended without a checkpoint: there is nothing to compare"
            return _finish(desk, verification, unknown(Why.NO_CHECKPOINT, message), now=now)
        if verification.interrupted_job_id is None:
            return _interrupt(desk, session, verification, final, now=now)
        return _compare(desk, storage, session, verification, final, now=now)


def seed_of(verification_id: str) -> int:
    """Return the seed of a verification for which nobody has named one."""
    return int.from_bytes(hashlib.sha256(verification_id.encode()).digest()[:6])


def _judge_end(job: Job | None, which: str) -> Finding | None:
    """Return what a job that did not succeed means for the verification."""
    if job is None:
        return unknown(Why.JOB_DELETED, f"the {which} job was deleted")
    if job.state is JobState.CANCELLED:
        return unknown(Why.JOB_CANCELLED, f"the {which} job {job.id} was cancelled")
    if job.state is JobState.FAILED:
        told = f"the {which} job {job.id} failed: {job.reason}: {job.message}"
        return unknown(Why.JOB_FAILED, told[:1000])
    return None


def _interrupt(
    desk: Desk, session: Session, verification: Verification, final: Checkpoint, *, now: datetime
) -> bool:
    """Submit the job that is killed, once it is known how long it takes."""
    spec = verification.spec
    begun = session.get(Checkpoint, spec["resume_from"]) if spec["resume_from"] else None
    first_step = 0 if begun is None else begun.step
    interruption = plan_interruption(
        first_step=first_step, last_step=final.step, seed=verification.seed
    )
    if interruption is None:
        message = (
            f"it takes {final.step - first_step} steps: to save, be killed and go on it needs 3"
        )
        return _finish(desk, verification, unknown(Why.TOO_FEW_STEPS, message), now=now)
    document = plan_interrupted(spec, verification.id, verification.name, interruption)
    caller = _find_caller(session, verification)
    try:
        submission = read_spotless(desk, caller, document)
        with desk.database.write() as writing:
            found = writing.get_one(Verification, verification.id)
            if found.interrupted_job_id is not None or found.finished_at is not None:
                return False
            stored = store_job(
                writing, desk, caller, submission, now=now, parent_job_id=found.reference_job_id
            )
            found.interrupted_job_id = stored.job.id
            found.interruption = asdict(interruption)
            touch(writing, found)
    except InvalidSpec as error:
        return _finish(desk, verification, refused(error), now=now)
    return True


def _compare(
    desk: Desk,
    storage: LocalStorage,
    session: Session,
    verification: Verification,
    final: Checkpoint,
    *,
    now: datetime,
) -> bool:
    interrupted = session.get(Job, verification.interrupted_job_id)
    finding = _judge_end(interrupted, "interrupted")
    if finding is not None:
        return _finish(desk, verification, finding, now=now)
    assert interrupted is not None
    if interrupted.state is not JobState.SUCCEEDED:
        return False
    other = find_final(session, interrupted)
    if other is None:
        message = f"{interrupted.id} has ended without a checkpoint: there is nothing to compare"
        return _finish(desk, verification, unknown(Why.NO_CHECKPOINT, message), now=now)
    best = verification.spec["checkpoint"]["keep_best"]
    evidence = gather_evidence(
        session,
        storage,
        final,
        other,
        tolerance=verification.tolerance,
        metric=None if best is None else best["metric"],
    )
    details = _describe(evidence, final, other, find_killed_step(session, interrupted))
    return _finish(desk, verification, decide(evidence), details=details, now=now)


def _describe(
    evidence: Evidence, reference: Checkpoint, interrupted: Checkpoint, killed_step: int | None
) -> dict[str, Any]:
    return {
        "reference": {"checkpoint_id": reference.id, "step": reference.step},
        "interrupted": {"checkpoint_id": interrupted.id, "step": interrupted.step},
        "killed_at_step": killed_step,
        "resumed_from_step": evidence.resumed_step,
        "num_files": len(evidence.files),
        "num_files_same": sum(pair.is_same for pair in evidence.files),
        # Those that differ first.
        "files": [
            asdict(pair)
            for pair in sorted(evidence.files, key=lambda pair: (pair.is_same, pair.path))
        ][:_FILES_SHOWN_MAX],
        "metrics": [
            {
                "name": pair.name,
                "reference": _spell(pair.reference),
                "interrupted": _spell(pair.interrupted),
                "is_near": pair.is_near,
            }
            for pair in evidence.metrics
        ],
    }


def _spell(value: float) -> float | str:
    """Return a number as JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _finish(
    desk: Desk,
    verification: Verification,
    finding: Finding,
    *,
    details: Mapping[str, Any] | None = None,
    now: datetime,
) -> bool:
    with desk.database.write() as session:
        found = session.get_one(Verification, verification.id)
        if found.finished_at is not None:
            return False
        finish(
            session,
            found,
            verdict=finding.verdict.value,
            reason=finding.reason.value,
            message=finding.message,
            is_compared=finding.is_compared,
            details=details,
            now=now,
        )
    return True


def _find_caller(session: Session, verification: Verification) -> Caller:
    """Return who asked for it, with no more rights than it takes to submit."""
    project = session.get_one(Project, verification.project_id)
    return Caller(
        key_id=verification.created_by,
        project_id=project.id,
        project=project.name,
        role=Role.MEMBER,
    )
