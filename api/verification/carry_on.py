"""Taking a verification one step further. Right at any time and when run twice.

What is due follows from the rows alone: the reference runs, then the job that is killed, then
both are compared. A restart of the service between any two lines loses nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, assert_never

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs.control import act_on_job
from api.jobs.desk import Desk
from api.jobs.submit import read_spotless, store_job
from api.storage import LocalStorage
from api.verification.evidence import find_final, find_killed_step, gather_evidence
from api.verification.plan import Interruption, plan_interrupted, plan_interruption
from api.verification.verdict import Evidence, Finding, Why, decide, refused, unknown
from models import Checkpoint, Job, Project, Role, Verification
from models.queries.verifications import finish, touch
from scheduler.core.control import Action
from scheduler.core.errors import ServiceError
from scheduler.core.states import JobState

_FILES_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conclude:
    """There is a verdict."""

    finding: Finding
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interrupt:
    """The second job is due: what is submitted, for whom, and where it is killed."""

    document: dict[str, Any]
    caller: Caller
    interruption: Interruption


_Step = _Conclude | _Interrupt | None


def carry_on(desk: Desk, storage: LocalStorage, verification_id: str, *, now: datetime) -> bool:
    """Do what is due for one verification; return whether something was.

    Raises:
        StaleDataError: another process was faster; look again.
    """
    with desk.database.read() as session:
        step = _find_step(session, storage, session.get_one(Verification, verification_id))
    match step:
        case None:
            return False
        case _Conclude():
            return conclude(desk, verification_id, step.finding, details=step.details, now=now)
        case _Interrupt():
            return _interrupt(desk, verification_id, step, now=now)
        case _:
            assert_never(step)


def conclude(
    desk: Desk,
    verification_id: str,
    finding: Finding,
    *,
    details: Mapping[str, Any] | None = None,
    now: datetime,
) -> bool:
    """End a verification with a verdict; return False when it has one."""
    with desk.database.write() as session:
        found = session.get_one(Verification, verification_id)
        if found.finished_at is not None:
            return False
        give_verdict(session, found, finding, details=details, now=now)
    return True


def call_off(
    session: Session, caller: Caller, verification: Verification, *, now: datetime
) -> None:
    """End a verification early, by the job that it waits for; without one to cancel, at once.

    One that is finished, or whose jobs have both ended, gets the verdict that it has earned.
    """
    job = session.get(Job, verification.interrupted_job_id or verification.reference_job_id)
    if verification.finished_at is not None or job is None:
        return
    is_between = verification.interrupted_job_id is None and job.state is JobState.SUCCEEDED
    if is_between or job.state is JobState.FINALIZING:
        message = f"it was called off when {job.id} had ended: ask again for a verdict"
        give_verdict(session, verification, unknown(Why.JOB_CANCELLED, message), now=now)
    elif not job.is_terminal:
        act_on_job(session, caller, job.id, Action.CANCEL, now=now)
        touch(session, verification)


def give_verdict(
    session: Session,
    verification: Verification,
    finding: Finding,
    *,
    details: Mapping[str, Any] | None = None,
    now: datetime,
) -> None:
    """Write what was found, within the caller's transaction."""
    finish(
        session,
        verification,
        verdict=finding.verdict.value,
        reason=finding.reason.value,
        message=finding.message,
        is_compared=finding.is_compared,
        details=details,
        now=now,
    )


def seed_of(verification_id: str) -> int:
    """Return the seed of a verification for which nobody has named one."""
    return int.from_bytes(hashlib.sha256(verification_id.encode()).digest()[:6])


def _find_step(session: Session, storage: LocalStorage, verification: Verification) -> _Step:
    if verification.finished_at is not None:
        return None
    reference = _find_end(session, verification.reference_job_id, "uninterrupted")
    if not isinstance(reference, Checkpoint):
        return reference
    if verification.interrupted_job_id is None:
        return _plan_second(session, verification, reference)
    interrupted = _find_end(session, verification.interrupted_job_id, "interrupted")
    if not isinstance(interrupted, Checkpoint):
        return interrupted
    return _compare(session, storage, verification, reference, interrupted)


def _find_end(session: Session, job_id: str, which: str) -> Checkpoint | _Conclude | None:
    """Return what a job has ended with, None while it goes on."""
    job = session.get(Job, job_id)
    if job is None:
        return _Conclude(finding=unknown(Why.JOB_DELETED, f"the {which} job was deleted"))
    told = f"the {which} job {job.id}"
    match job.state:
        case JobState.CANCELLED:
            return _Conclude(finding=unknown(Why.JOB_CANCELLED, f"{told} was cancelled"))
        case JobState.FAILED:
            message = f"{told} failed: {job.reason}: {job.message}"[:1000]
            return _Conclude(finding=unknown(Why.JOB_FAILED, message))
        case JobState.SUCCEEDED:
            message = f"{job.id} has ended without a checkpoint: there is nothing to compare"
            nothing = _Conclude(finding=unknown(Why.NO_CHECKPOINT, message))
            return find_final(session, job) or nothing
        case _:
            return None


def _plan_second(session: Session, verification: Verification, final: Checkpoint) -> _Step:
    """Return the job that is killed, now that it is known how long it takes."""
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
        return _Conclude(finding=unknown(Why.TOO_FEW_STEPS, message))
    return _Interrupt(
        document=plan_interrupted(spec, verification.id, verification.name, interruption),
        caller=_find_caller(session, verification),
        interruption=interruption,
    )


def _interrupt(desk: Desk, verification_id: str, step: _Interrupt, *, now: datetime) -> bool:
    """Submit the job that is killed."""
    try:
        submission = read_spotless(desk, step.caller, step.document)
        with desk.database.write() as session:
            found = session.get_one(Verification, verification_id)
            if found.interrupted_job_id is not None or found.finished_at is not None:
                return False
            parent_id = found.reference_job_id
            stored = store_job(
                session, desk, step.caller, submission, now=now, parent_job_id=parent_id
            )
            found.interrupted_job_id = stored.job.id
            found.interruption = asdict(step.interruption)
            touch(session, found)
    except ServiceError as error:
        if error.is_retryable:
            raise
        return conclude(desk, verification_id, refused(error), now=now)
    return True


def _compare(
    session: Session,
    storage: LocalStorage,
    verification: Verification,
    reference: Checkpoint,
    interrupted: Checkpoint,
) -> _Conclude:
    best = verification.spec["checkpoint"]["keep_best"]
    evidence = gather_evidence(
        session,
        storage,
        reference,
        interrupted,
        tolerance=verification.tolerance,
        metric=None if best is None else best["metric"],
    )
    killed_step = find_killed_step(session, session.get_one(Job, interrupted.job_id))
    return _Conclude(
        finding=decide(evidence), details=_describe(evidence, reference, interrupted, killed_step)
    )


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


def _find_caller(session: Session, verification: Verification) -> Caller:
    """Return who asked for it, with no more rights than it takes to submit."""
    project = session.get_one(Project, verification.project_id)
    return Caller(
        key_id=verification.created_by,
        project_id=project.id,
        project=project.name,
        role=Role.MEMBER,
    )
