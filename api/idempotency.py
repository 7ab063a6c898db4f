"""`Idempotency-Key`: the same request twice does its work once, and is answered the same.

The key and the work are written in one transaction, so a crash leaves both or neither. Only
successes are kept; what failed changed nothing and may be tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Header, Request, Response
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from api import shapes
from api.auth.callers import Caller
from api.errors import IdempotencyMismatch
from models import Base, Database, IdempotencyRecord
from scheduler.core.errors import StaleVersion
from scheduler.core.spec import content_hash

KEPT = timedelta(hours=24)
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="idempotency-key",
        pattern=shapes.IDEMPOTENCY_KEY,
        description="Your own name of this request; sent again it does nothing a second time.",
    ),
]
_TRIES = 5

# On the way of every submit: statements on columns, made once, cost a third of objects.
_RECORDS = Base.metadata.tables[IdempotencyRecord.__tablename__]
_IS_MINE = (
    (_RECORDS.c.project_id == bindparam("of_project"))
    & (_RECORDS.c.scope == bindparam("of_scope"))
    & (_RECORDS.c.key == bindparam("of_key"))
)
_FIND = select(_RECORDS).where(_IS_MINE)
_FORGET = delete(_RECORDS).where(_IS_MINE)
_KEEP = insert(_RECORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What makes a repeated request the same one."""

    project_id: str
    scope: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success, as it is kept and sent."""

    status: int
    body: bytes
    location: str | None = None
    etag: str | None = None
    is_replayed: bool = False

    def render(self) -> Response:
        """Return the answer as it goes over the wire."""
        headers = {"location": self.location, "etag": self.etag}
        if self.is_replayed:
            headers["idempotency-replayed"] = "true"
        present = {name: value for name, value in headers.items() if value is not None}
        return Response(self.body, self.status, present, "application/json")


def read_ticket(
    request: Request, caller: Caller, key: str | None, document: object
) -> Ticket | None:
    """Return what the request's `Idempotency-Key` stands for, None when it has none.

    Args:
        document: what was asked for, as JSON has it: spaces and the order of names are no matter.
    """
    if key is None:
        return None
    return Ticket(
        project_id=caller.project_id,
        scope=f"{request.method} {request.url.path}"[:255],
        key=key,
        fingerprint=content_hash(document),
    )


def write_once(
    database: Database,
    ticket: Ticket | None,
    work: Callable[[Session], Answer],
    *,
    now: datetime,
) -> Answer:
    """Return the answer of `work`, done in one transaction; the kept one if it was done before.

    Raises:
        IdempotencyMismatch: the key came with another body.
        StaleVersion: others changed the same row faster, several times.
    """

    def once(session: Session) -> Answer:
        kept = _find(session, ticket, now)
        if kept is not None:
            return kept
        answer = work(session)
        _keep(session, ticket, answer, now)
        return answer

    for _ in range(_TRIES):
        try:
            return database.write_together(once)
        except StaleDataError:
            continue  # the row has a new version: look again
        except IntegrityError:
            # On PostgreSQL a request with the same key may have been faster by a moment.
            with database.read() as session:
                kept = _find(session, ticket, now)
            if kept is None:
                raise
            return kept
    raise StaleVersion("the job changes too often just now: repeat the request")


def _find(session: Session, ticket: Ticket | None, now: datetime) -> Answer | None:
    if ticket is None:
        return None
    mine = {"of_project": ticket.project_id, "of_scope": ticket.scope, "of_key": ticket.key}
    row = session.execute(_FIND, mine).one_or_none()
    if row is None:
        return None
    if row.created_at <= now - KEPT:
        session.execute(_FORGET, mine)
        return None
    if row.fingerprint != ticket.fingerprint:
        raise IdempotencyMismatch(
            "this idempotency-key came with another body before: use a new key for a new request"
        )
    return Answer(
        status=row.status, body=row.body, location=row.location, etag=row.etag, is_replayed=True
    )


def _keep(session: Session, ticket: Ticket | None, answer: Answer, now: datetime) -> None:
    if ticket is None:
        return
    values = {
        "project_id": ticket.project_id,
        "scope": ticket.scope,
        "key": ticket.key,
        "fingerprint": ticket.fingerprint,
        "status": int(answer.status),
        "location": answer.location,
        "etag": answer.etag,
        "body": answer.body,
        "created_at": now,
    }
    session.execute(_KEEP, values)
