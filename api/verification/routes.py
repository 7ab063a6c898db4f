"""Verifications of resume over HTTP: ask for one, wait for its verdict, list, call off."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.deps import (
    ConfigDep,
    CurrentCaller,
    DatabaseDep,
    MemberCaller,
    PageDep,
    ReadSession,
    StreamsDep,
)
from api.errors import problem_responses
from api.idempotency import Answer, IdempotencyKey, read_ticket, write_once
from api.jobs.desk import DeskDep
from api.jobs.documentation import SPEC_BODY
from api.long_polls import AfterVersion, WaitSeconds, await_newer
from api.pages import cut_page, read_after
from api.strict import StrictRoute, check_json_type, parse_json, read_body
from api.verification import schemas
from api.verification.carry_on import call_off
from api.verification.representation import get_visible_verification, represent_verifications
from api.verification.submit import submit_verification
from models import Database, Verification
from models.queries.verifications import verification_topic

router = APIRouter(tags=["verifications"], route_class=StrictRoute)

TOLERANCE = 0.05

_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": schemas.ResumeVerification,
        "description": "The new verification; it is stored, with its first job.",
        "headers": {
            "Location": {"x-header": "Location"},
            "Idempotency-Replayed": {"x-header": "Idempotency-Replayed"},
        },
    }
}


@router.post(
    "/v1/jobs/verify-resume",
    operation_id="jobs_verify_resume",
    response_class=Response,
    status_code=201,
    responses={**_CREATED, **problem_responses(422)},
    openapi_extra=SPEC_BODY,
)
async def verify_resume(
    request: Request,
    caller: MemberCaller,
    desk: DeskDep,
    idempotency_key: IdempotencyKey = None,
    seed: Annotated[
        int | None,
        Query(ge=0, le=2**53 - 1, description="Decides at which step is killed."),
    ] = None,
    tolerance: Annotated[
        float,
        Query(ge=0, le=1, description="How far metrics may differ and still be equivalent."),
    ] = TOLERANCE,
) -> Response:
    """Find out how well a spec resumes: train, train again with a kill, compare.

    Two jobs are run, one after the other: the second one is killed once, at a step that the seed
    decides, and resumes by itself. Every job of the same code, configuration and layout shows the
    verdict from then on.
    """
    body = await read_body(request)
    check_json_type(request)

    def work() -> Response:
        document, now = parse_json(body), datetime.now(UTC)
        asked = {"spec": document, "seed": seed, "tolerance": tolerance}
        ticket = read_ticket(request, caller, idempotency_key, asked)
        return submit_verification(
            desk, caller, document, seed=seed, tolerance=tolerance, ticket=ticket, now=now
        ).render()

    return await run_in_threadpool(work)


@router.get("/v1/verifications", operation_id="verifications_list")
def list_(
    caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep
) -> schemas.ResumeVerificationList:
    """List the verifications of your project, newest first; an admin's key lists all."""
    statement = select(Verification).order_by(Verification.id.desc()).limit(page.limit + 1)
    if not caller.is_admin:
        statement = statement.where(Verification.project_id == caller.project_id)
    after = read_after(config.signing_key, "verifications", page)
    if after is not None:
        statement = statement.where(Verification.id < str(after))
    rows = session.scalars(statement).all()
    keys = [row.id for row in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "verifications", rows, keys, page.limit)
    data = represent_verifications(session, shown)
    return schemas.ResumeVerificationList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/v1/verifications/{verification_id}", operation_id="verifications_get")
async def get(
    verification_id: str,
    caller: CurrentCaller,
    database: DatabaseDep,
    streams: StreamsDep,
    wait: WaitSeconds = 0,
    after_version: AfterVersion = None,
) -> schemas.ResumeVerification:
    """Read a verification; with `wait`, answer once it has changed, or when time is up."""
    return await await_newer(
        streams,
        verification_topic(verification_id),
        lambda: run_in_threadpool(_read, database, caller, verification_id),
        after_version=after_version,
        timeout_seconds=wait,
    )


@router.post(
    "/v1/verifications/{verification_id}/cancel",
    operation_id="verifications_cancel",
    response_model=schemas.ResumeVerification,
    responses=problem_responses(409),
)
def cancel(verification_id: str, caller: MemberCaller, database: DatabaseDep) -> Response:
    """Cancel the job that it waits for, which ends it; one that is finished stays as it is.

    Where there is no job to cancel, as between the two, it ends at once.
    """
    now = datetime.now(UTC)

    def work(session: Session) -> Answer:
        found = get_visible_verification(session, caller, verification_id)
        call_off(session, caller, found, now=now)
        (shown,) = represent_verifications(session, [found])
        return Answer(status=HTTPStatus.OK, body=shown.model_dump_json().encode())

    return write_once(database, None, work, now=now).render()


def _read(database: Database, caller: Caller, verification_id: str) -> schemas.ResumeVerification:
    with database.read() as session:
        row = get_visible_verification(session, caller, verification_id)
        (shown,) = represent_verifications(session, [row])
    return shown
