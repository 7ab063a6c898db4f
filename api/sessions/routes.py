"""Browser sessions over HTTP: a key is exchanged for a cookie that scripts cannot read."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import delete

from api.auth.callers import Caller
from api.auth.credentials import Credentials
from api.auth.gate import SESSION_COOKIE
from api.auth.tokens import KEY_PREFIX, hash_secret, new_session_secret
from api.deps import CurrentCaller, DatabaseDep, Now, ReadSession, public
from api.errors import problem_responses
from api.sessions import schemas
from api.strict import StrictRoute
from models import BrowserSession
from scheduler.core.errors import Unauthenticated

router = APIRouter(prefix="/v1/sessions", tags=["sessions"], route_class=StrictRoute)

LIFE = timedelta(hours=12)


@router.post(
    "",
    operation_id="sessions_create",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(public)],
    responses=problem_responses(401, 403),
)
def create(
    wanted: schemas.SessionRequest,
    database: DatabaseDep,
    now: Now,
    request: Request,
    response: Response,
) -> schemas.Session:
    """Exchange a key for an HttpOnly cookie, good for twelve hours."""
    credentials: Credentials = request.app.state.credentials
    caller = credentials.look_up(wanted.key) if wanted.key.startswith(KEY_PREFIX) else None
    if not isinstance(caller, Caller):
        raise Unauthenticated("the key is unknown, expired or revoked: ask for a new one")
    secret, expires_at = new_session_secret(), now + LIFE
    with database.write() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= now))
        session.add(
            BrowserSession(
                key_id=caller.key_id,
                secret_sha256=hash_secret(secret),
                created_at=now,
                expires_at=expires_at,
            )
        )
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(LIFE.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=_came_by_tls(request),
    )
    return schemas.Session(
        key_id=caller.key_id, project=caller.project, role=caller.role, expires_at=expires_at
    )


@router.get("", operation_id="sessions_get")
def get(caller: CurrentCaller, session: ReadSession) -> schemas.Session:
    """Say who you are: the key, its project and its role."""
    expires_at = None
    if caller.session_id is not None:
        browser = session.get(BrowserSession, caller.session_id)
        expires_at = browser.expires_at if browser is not None else None
    return schemas.Session(
        key_id=caller.key_id, project=caller.project, role=caller.role, expires_at=expires_at
    )


@router.delete("", operation_id="sessions_delete", status_code=HTTPStatus.NO_CONTENT)
def end(caller: CurrentCaller, database: DatabaseDep, request: Request, response: Response) -> None:
    """End the browser session of this request; its cookie is worthless from now on."""
    if caller.session_id is not None:
        with database.write() as session:
            session.execute(delete(BrowserSession).where(BrowserSession.id == caller.session_id))
        credentials: Credentials = request.app.state.credentials
        credentials.forget_all()
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")


def _came_by_tls(request: Request) -> bool:
    # A browser sends its page's origin with this POST; behind a proxy the scheme here is http.
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or origin.startswith("https://")
