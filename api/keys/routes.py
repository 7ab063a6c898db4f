"""Keys over HTTP: an admin makes, lists and revokes them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.auth.credentials import Credentials
from api.auth.tokens import hash_secret, new_api_key
from api.deps import AdminCaller, ConfigDep, DatabaseDep, Now, PageDep, ReadSession, WriteSession
from api.keys import schemas
from api.pages import cut_page, read_after
from api.strict import StrictRoute
from models import ApiKey, BrowserSession, Project, Role
from scheduler.core.errors import Invalid, NotFound, Problem

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)


@router.post("", operation_id="keys_create", status_code=HTTPStatus.CREATED)
def create(
    wanted: schemas.KeyRequest,
    caller: AdminCaller,
    session: WriteSession,
    now: Now,
    response: Response,
) -> schemas.NewKey:
    """Make a key. The answer holds its secret, which is shown this once."""
    project = _find_project(session, wanted.project or caller.project)
    secret = new_api_key()
    key = ApiKey(
        project_id=project.id,
        name=wanted.name,
        role=Role(wanted.role),
        secret_sha256=hash_secret(secret),
        last4=secret[-4:],
        created_at=now,
        expires_at=_read_expiry(wanted.expires_at, now),
    )
    session.add(key)
    session.flush()
    response.headers["location"] = f"/v1/keys/{key.id}"
    return schemas.NewKey(**_represent(key, project.name).model_dump(), key=secret)


@router.get("", operation_id="keys_list")
def list_(
    caller: AdminCaller, page: PageDep, session: ReadSession, config: ConfigDep
) -> schemas.KeyList:
    """List the keys of all projects, the revoked ones too."""
    statement = select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id)
    after = read_after(config.signing_key, "keys", page)
    if after is not None:
        statement = statement.where(ApiKey.id > str(after))
    rows = session.execute(statement.order_by(ApiKey.id).limit(page.limit + 1)).all()
    keys = [key.id for key, _ in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "keys", rows, keys, page.limit)
    data = [_represent(key, project) for key, project in shown]
    return schemas.KeyList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{key_id}", operation_id="keys_get")
def get(key_id: str, caller: AdminCaller, session: ReadSession) -> schemas.Key:
    """Read a key, without its secret."""
    key = _get_key(session, key_id)
    project = session.get_one(Project, key.project_id)
    return _represent(key, project.name)


@router.delete("/{key_id}", operation_id="keys_revoke", status_code=HTTPStatus.NO_CONTENT)
def revoke(
    key_id: str, caller: AdminCaller, database: DatabaseDep, now: Now, request: Request
) -> None:
    """Revoke a key, and end all browser sessions that stand for it. Again does nothing more."""
    with database.write() as session:
        key = _get_key(session, key_id)
        if key.revoked_at is None:
            key.revoked_at = now
        session.execute(delete(BrowserSession).where(BrowserSession.key_id == key.id))
    credentials: Credentials = request.app.state.credentials
    credentials.forget_all()


def _get_key(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("this key")
    return key


def _find_project(session: Session, name: str) -> Project:
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        message = "there is no such project: make it first, with POST /v1/projects"
        raise Invalid(message, problems=[Problem("/project", "unknown_project", message)])
    return project


def _read_expiry(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    expires_at = datetime.fromisoformat(text)
    if expires_at <= now:
        message = "must lie in the future"
        raise Invalid("the key would be dead at once", problems=[
            Problem("/expires_at", "in_the_past", message)
        ])  # fmt: skip
    return expires_at


def _represent(key: ApiKey, project: str) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        name=key.name,
        project=project,
        role=key.role,
        last4=key.last4,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )
