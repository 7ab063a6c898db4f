"""Asking for a verification: the row and its first job, stored together."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.idempotency import Answer, Ticket, write_once
from api.jobs.desk import Desk
from api.jobs.submit import read_spotless, store_job, validate_job
from api.verification.carry_on import seed_of
from api.verification.plan import plan_reference
from api.verification.representation import represent_verification
from models import Verification, announce, new_id
from models.queries.verifications import VERIFICATIONS_TOPIC


def submit_verification(
    desk: Desk,
    caller: Caller,
    document: Any,
    *,
    seed: int | None,
    tolerance: float,
    ticket: Ticket | None,
    now: datetime,
) -> Answer:
    """Store a verification of the spec in `document`, and the job that nobody disturbs.

    Args:
        seed: decides where the other job is killed; derived from the id where it is None.

    Raises:
        InvalidSpec: the spec would be refused as a job; every problem is listed.
        IdempotencyMismatch: the ticket's key came with another body.
    """
    spec = validate_job(desk, caller, document)
    verification_id = new_id("ver")
    name = spec["name"] or spec["recipe"] or spec["entrypoint"]
    submission = read_spotless(desk, caller, plan_reference(spec, verification_id, name))

    def work(session: Session) -> Answer:
        stored = store_job(session, desk, caller, submission, now=now)
        verification = Verification(
            id=verification_id,
            project_id=stored.job.project_id,
            subject_sha256=stored.job.resume_sha256,
            name=name,
            spec=spec,
            seed=seed_of(verification_id) if seed is None else seed,
            tolerance=tolerance,
            reference_job_id=stored.job.id,
            message="",
            is_compared=False,
            is_current=False,
            version=1,
            created_by=caller.key_id,
            created_at=now,
        )
        session.add(verification)
        session.flush()
        announce(session, VERIFICATIONS_TOPIC)
        body = represent_verification(verification, stored.project).model_dump_json().encode()
        return Answer(
            status=HTTPStatus.CREATED, body=body, location=f"/v1/verifications/{verification_id}"
        )

    return write_once(desk.database, ticket, work, now=now)
