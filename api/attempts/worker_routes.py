"""What supervisors call for their attempt: assignment, lease, exit, code and inputs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.attempts.assignment import build_assignment, list_file_ids
from api.attempts.exit import report_exit
from api.attempts.fence import Membership
from api.attempts.lease import Renewal, Report, renew_lease
from api.attempts.reports import keep_report
from api.attempts.schemas import (
    Assignment,
    ExitIn,
    ExitOut,
    LeaseIn,
    LeaseOut,
    WantedOut,
)
from api.attempts.schemas_reports import ReportIn, ReportOut
from api.attempts.writing import read_as, ticket_of, write, write_as
from api.auth.callers import AttemptCaller
from api.auth.tokens import issue_attempt_token, verify_attempt_token
from api.checkpoints.expiry import expire_after
from api.checkpoints.removal import finish_deletions
from api.config import ApiConfig
from api.deps import ConfigDep, CurrentAttempt, DatabaseDep
from api.downloads import DOWNLOAD_RESPONSES, send_object
from api.errors import problem_responses
from api.recipes.catalogue import list_modules
from api.storage import ObjectKey
from api.storage_access import StorageDep
from api.strict import StrictRoute
from models import File
from scheduler.core.errors import NotFound
from scheduler.core.spec import read_spec

router = APIRouter(prefix="/v1/attempts", tags=["worker"], route_class=StrictRoute)


@router.get(
    "/{attempt_id}/assignment",
    operation_id="attempts_get_assignment",
    responses=problem_responses(409),
)
async def get_assignment(
    attempt_id: str, caller: CurrentAttempt, config: ConfigDep, request: Request
) -> Assignment:
    """Return everything that this node needs to run its part of the attempt."""
    modules = await run_in_threadpool(list_modules, config.recipes_dir)

    def build(session: Session, member: Membership) -> Assignment:
        return build_assignment(session, member, modules=modules, timers=config.timers)

    return await read_as(request, caller, build)


@router.post(
    "/{attempt_id}/lease",
    operation_id="attempts_renew_lease",
    response_model=LeaseOut,
    responses=problem_responses(409),
)
async def renew(
    attempt_id: str, report: LeaseIn, caller: CurrentAttempt, config: ConfigDep, request: Request
) -> Response:
    """Renew the lease of one node; the answer says what is wanted of its supervisor."""
    ranks = [rank.model_dump(exclude_unset=True) for rank in report.ranks]
    said = Report(**report.model_dump(exclude={"ranks"}), ranks=ranks)
    lease = timedelta(seconds=config.timers.lease_seconds)

    def change(session: Session, member: Membership, now: datetime) -> Renewal:
        return renew_lease(session, member, said, now=now, lease=lease)

    renewal = await write_as(request, caller, change)
    answer = LeaseOut.model_validate(
        {
            "lease_seconds": config.timers.lease_seconds,
            "token": _renew_token(request, caller, config),
            "wanted": WantedOut.model_validate(renewal.wanted, from_attributes=True),
            "rendezvous": renewal.rendezvous,
        }
    )
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post(
    "/{attempt_id}/reports",
    operation_id="attempts_report",
    responses=problem_responses(409),
)
async def report_(
    attempt_id: str, report: ReportIn, caller: CurrentAttempt, request: Request
) -> ReportOut:
    """Say what has been seen of the ranks; it becomes an event of the job, once."""
    said = report.model_dump(mode="json")

    def change(session: Session, member: Membership, now: datetime) -> None:
        keep_report(session, member, **said, now=now)

    await write_as(request, caller, change)
    return ReportOut(accepted=True)


@router.post(
    "/{attempt_id}/exit",
    operation_id="attempts_report_exit",
    responses=problem_responses(409),
)
async def exit_(
    attempt_id: str,
    report: ExitIn,
    caller: CurrentAttempt,
    database: DatabaseDep,
    storage: StorageDep,
) -> ExitOut:
    """Say how the attempt ended on this node. The same report again gets the same answer."""
    record: dict[str, Any] = report.model_dump(mode="json")
    now = datetime.now(UTC)

    def change(session: Session) -> tuple[str, list[str]]:
        job_state = report_exit(session, ticket_of(caller), record, now=now)
        return job_state, expire_after(session, attempt_id)

    job_state, expired = await run_in_threadpool(write, database, change)
    if expired:
        await run_in_threadpool(finish_deletions, database, storage, expired)
    return ExitOut(accepted=True, job_state=job_state)


@router.get(
    "/{attempt_id}/files/{file_id}",
    operation_id="attempts_get_file",
    response_class=Response,
    responses={**DOWNLOAD_RESPONSES, **problem_responses(409)},
)
async def get_file(
    attempt_id: str,
    file_id: str,
    caller: CurrentAttempt,
    storage: StorageDep,
    request: Request,
) -> Response:
    """Return the bytes of the job's code or of one of its inputs."""

    def find(session: Session, member: Membership) -> File:
        file = session.get(File, file_id)
        named = list_file_ids(read_spec(member.job.spec))
        if file is None or file_id not in named or file.project_id != member.job.project_id:
            raise NotFound("this file")
        return file

    file = await read_as(request, caller, find)
    return await send_object(
        request,
        storage,
        ObjectKey(file.id),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        filename=file.filename,
    )


def _renew_token(request: Request, caller: AttemptCaller, config: ApiConfig) -> str:
    """Return the caller's token while it has half of its life left, else a fresh one."""
    now = datetime.now(UTC)
    life = timedelta(seconds=config.timers.attempt_token_seconds)
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    claims = verify_attempt_token(config.signing_key, token, now)
    if claims is not None and claims.expires_at - now > life / 2:
        return token
    return issue_attempt_token(
        config.signing_key, caller.attempt_id, caller.node_id, caller.epoch, now + life
    )
