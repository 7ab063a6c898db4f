"""Quotas over HTTP: an admin sets them, everybody sees those of the own project."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.deps import (
    AdminCaller,
    ConfigDep,
    CurrentCaller,
    DatabaseDep,
    Now,
    PageDep,
    ReadSession,
    WriteSession,
)
from api.errors import problem_responses
from api.idempotency import Answer, IdempotencyKey, read_ticket, write_once
from api.pages import cut_page, read_after
from api.preconditions import IfMatch, check_version
from api.quotas import schemas
from api.quotas.documentation import CREATED, SHOWN
from api.quotas.representation import render_quota, represent_quotas
from api.strict import StrictRoute
from models import ApiKey, Project, Quota, announce
from models.queries.jobs import JOBS_TOPIC
from scheduler.core.errors import Conflict, Invalid, NotFound, Problem

router = APIRouter(prefix="/v1/quotas", tags=["quotas"], route_class=StrictRoute)


class QuotaExists(Conflict):
    """The project, or the user, has a quota."""

    code = "quota_exists"


@router.post(
    "",
    operation_id="quotas_create",
    response_class=Response,
    status_code=HTTPStatus.CREATED,
    responses={**CREATED, **problem_responses(409)},
)
def create(
    wanted: schemas.QuotaRequest,
    caller: AdminCaller,
    database: DatabaseDep,
    request: Request,
    now: Now,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Set the quota of a project, or of one user of it."""
    ticket = read_ticket(request, caller, idempotency_key, wanted.model_dump())

    def work(session: Session) -> Answer:
        quota = _add(session, wanted, now)
        return _answer(session, quota, now, status=HTTPStatus.CREATED)

    return write_once(database, ticket, work, now=now).render()


@router.get("", operation_id="quotas_list")
def list_(
    caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep, now: Now
) -> schemas.QuotaList:
    """List the quotas of your project; an admin's key lists all."""
    statement = select(Quota).order_by(Quota.id).limit(page.limit + 1)
    if not caller.is_admin:
        statement = statement.where(Quota.project_id == caller.project_id)
    after = read_after(config.signing_key, "quotas", page)
    if after is not None:
        statement = statement.where(Quota.id > str(after))
    rows = session.scalars(statement).all()
    keys = [quota.id for quota in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "quotas", rows, keys, page.limit)
    data = represent_quotas(session, shown, now=now)
    return schemas.QuotaList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{quota_id}", operation_id="quotas_get", response_class=Response, responses=SHOWN)
def get(quota_id: str, caller: CurrentCaller, session: ReadSession, now: Now) -> Response:
    """Read a quota, and what is used of it."""
    return _answer(session, _get_quota(session, caller, quota_id), now).render()


@router.patch(
    "/{quota_id}",
    operation_id="quotas_update",
    response_class=Response,
    responses={**SHOWN, **problem_responses(409, 412)},
)
def update(
    quota_id: str,
    patch: schemas.QuotaPatch,
    caller: AdminCaller,
    database: DatabaseDep,
    now: Now,
    if_match: IfMatch = None,
) -> Response:
    """Change a quota; with `If-Match`, only the version that you have read.

    It holds from the next pass of the scheduler on. Jobs that run are not stopped for a smaller
    limit; those of a spent month are.
    """

    def work(session: Session) -> Answer:
        quota = _get_quota(session, caller, quota_id)
        check_version(if_match, "quota", quota.version)
        given = patch.model_dump(include=patch.model_fields_set)
        changed = {name: value for name, value in given.items() if getattr(quota, name) != value}
        if changed:
            _change(session, quota, changed, now)
        return _answer(session, quota, now)

    return write_once(database, None, work, now=now).render()


@router.delete(
    "/{quota_id}",
    operation_id="quotas_delete",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=problem_responses(412),
)
def delete(
    quota_id: str, caller: AdminCaller, session: WriteSession, if_match: IfMatch = None
) -> Response:
    """Take a quota away: what it was for has a weight of 1, and neither guarantee nor limit."""
    quota = _get_quota(session, caller, quota_id)
    check_version(if_match, "quota", quota.version)
    session.delete(quota)
    announce(session, JOBS_TOPIC)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _add(session: Session, wanted: schemas.QuotaRequest, now: datetime) -> Quota:
    project_id = session.scalar(select(Project.id).where(Project.name == wanted.project))
    if project_id is None:
        message = "there is no such project: make it first, with POST /v1/projects"
        raise Invalid(message, problems=[Problem("/project", "unknown_project", message)])
    if wanted.user is not None:
        key = session.get(ApiKey, wanted.user)
        if key is None or key.project_id != project_id:
            message = "there is no such key of the project: list them with GET /v1/keys"
            raise Invalid(message, problems=[Problem("/user", "unknown_user", message)])
    known = select(Quota.id).where(
        Quota.project_id == project_id,
        Quota.user_id.is_(None) if wanted.user is None else Quota.user_id == wanted.user,
    )
    if (quota_id := session.scalar(known)) is not None:
        raise QuotaExists(f"it has a quota, {quota_id}: change that one, with PATCH")
    values = wanted.model_dump(exclude={"project", "user"})
    quota = Quota(
        project_id=project_id,
        user_id=wanted.user,
        version=1,
        created_at=now,
        updated_at=now,
        **values,
    )
    _check(quota)
    session.add(quota)
    session.flush()
    announce(session, JOBS_TOPIC)
    return quota


def _change(session: Session, quota: Quota, changed: dict[str, Any], now: datetime) -> None:
    for name, value in changed.items():
        setattr(quota, name, value)
    _check(quota)
    quota.version, quota.updated_at = quota.version + 1, now
    session.flush()
    announce(session, JOBS_TOPIC)


def _check(quota: Quota) -> None:
    limit = quota.limit_gpus
    if limit is not None and quota.guaranteed_gpus > limit:
        message = f"{quota.guaranteed_gpus} GPUs are guaranteed: raise the limit, or lower those"
        raise Invalid(message, problems=[Problem("/limit_gpus", "below_guarantee", message)])


def _get_quota(session: Session, caller: Caller, quota_id: str) -> Quota:
    quota = session.get(Quota, quota_id)
    if quota is None or not caller.may_see(quota.project_id):
        raise NotFound("this quota")
    return quota


def _answer(
    session: Session, quota: Quota, now: datetime, *, status: HTTPStatus = HTTPStatus.OK
) -> Answer:
    (shown,) = represent_quotas(session, [quota], now=now)
    body, etag = render_quota(shown)
    location = f"/v1/quotas/{quota.id}" if status is HTTPStatus.CREATED else None
    return Answer(status=status, body=body, location=location, etag=etag)
