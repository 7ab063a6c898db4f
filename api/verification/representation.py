"""From rows to verifications as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.jobs.schemas import read_verdict
from api.verification import schemas
from models import Project, Verification
from scheduler.core.errors import NotFound


def get_visible_verification(
    session: Session, caller: Caller, verification_id: str
) -> Verification:
    """Return a verification that the caller may see.

    Raises:
        NotFound: there is none of that id, or it belongs to another project.
    """
    found = session.get(Verification, verification_id)
    if found is None or not caller.may_see(found.project_id):
        raise NotFound("this verification")
    return found


def represent_verifications(
    session: Session, rows: Sequence[Verification]
) -> list[schemas.ResumeVerification]:
    """Return `rows` as the API shows them; one query, however many they are."""
    if not rows:
        return []
    ids = {row.project_id for row in rows}
    found = session.execute(select(Project.id, Project.name).where(Project.id.in_(ids)))
    projects = {row.id: row.name for row in found}
    return [represent_verification(row, projects[row.project_id]) for row in rows]


def represent_verification(row: Verification, project: str) -> schemas.ResumeVerification:
    """Return one; no query."""
    return schemas.ResumeVerification(
        id=row.id,
        project=project,
        name=row.name,
        state=_state_of(row),
        verdict=None if row.verdict is None else read_verdict(row.verdict),
        reason=row.reason,
        message=row.message,
        reference_job_id=row.reference_job_id,
        interrupted_job_id=row.interrupted_job_id,
        interruption=None
        if row.interruption is None
        else schemas.PlannedInterruption(**row.interruption),
        comparison=None if row.details is None else schemas.Comparison(**row.details),
        seed=row.seed,
        tolerance=row.tolerance,
        subject_sha256=row.subject_sha256,
        spec=row.spec,
        version=row.version,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _state_of(row: Verification) -> Literal["reference", "interrupted", "finished"]:
    if row.finished_at is not None:
        return "finished"
    return "reference" if row.interrupted_job_id is None else "interrupted"
