"""One hop into a thread, one transaction, and the fence inside it: how supervisors write.

Hot routes read their body first and then come here once; a dependency that opens a session would
cost a thread hop of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import Request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from starlette.concurrency import run_in_threadpool

from api.attempts.fence import Membership, Ticket, check_live
from api.auth.callers import AttemptCaller
from models import Database
from scheduler.core.errors import StaleVersion

T = TypeVar("T")

_TRIES = 5


def ticket_of(caller: AttemptCaller) -> Ticket:
    """Return what the caller's token says."""
    return Ticket(attempt_id=caller.attempt_id, node_id=caller.node_id, epoch=caller.epoch)


async def write_as(
    request: Request, caller: AttemptCaller, work: Callable[[Session, Membership, datetime], T]
) -> T:
    """Return what `work` returns, done in one transaction while the attempt is live.

    Raises:
        StaleAttempt: it is not; nothing was changed.
    """
    ticket, now = ticket_of(caller), datetime.now(UTC)

    def fenced(session: Session) -> T:
        return work(session, check_live(session, ticket), now)

    return await run_in_threadpool(write, request.app.state.database, fenced)


async def read_as(
    request: Request, caller: AttemptCaller, work: Callable[[Session, Membership], T]
) -> T:
    """Return what `work` reads while the attempt is live.

    Raises:
        StaleAttempt: it is not.
    """
    ticket, database = ticket_of(caller), request.app.state.database

    def fenced() -> T:
        with database.read() as session:
            return work(session, check_live(session, ticket))

    return await run_in_threadpool(fenced)


def write(database: Database, work: Callable[[Session], T]) -> T:
    """Return what `work` returns, done in one transaction; again when another one was faster.

    `work` may run more than once, so it changes nothing but rows.

    Raises:
        StaleVersion: others were faster each time.
    """
    for _ in range(_TRIES):
        try:
            return database.write_together(work)
        except (StaleDataError, IntegrityError):
            continue  # the row has a new version, or was there first: look again
    raise StaleVersion("the job changes too often just now: repeat the request")
