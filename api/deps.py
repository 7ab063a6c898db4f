"""What routes ask for: sessions, the clock, who is calling, where a page begins.

Every route names one kind of caller; `create_app` refuses to start with one that does not. Reads
of the caller cost no query: the gate has already found it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from sqlalchemy.orm import Session

from api import shapes
from api.auth.callers import AttemptCaller, Caller, NodeCaller, Principal
from api.config import ApiConfig
from api.streams import Streams
from models import Database, Role
from scheduler.core.errors import Forbidden

LIMIT_DEFAULT = 20
LIMIT_MAX = 100


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that is asked for.

    Attributes:
        limit: entries at most, 1 to 100.
        after: cursor of the page before, None for the first page.
    """

    limit: int
    after: str | None


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _config(request: Request) -> ApiConfig:
    config: ApiConfig = request.app.state.config
    return config


async def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


DatabaseDep = Annotated[Database, Depends(_database)]
ConfigDep = Annotated[ApiConfig, Depends(_config)]
StreamsDep = Annotated[Streams, Depends(_streams)]


def _read_session(database: DatabaseDep) -> Iterator[Session]:
    with database.read() as session:
        yield session


def _write_session(database: DatabaseDep) -> Iterator[Session]:
    with database.write() as session:
        yield session


# scope="function": the transaction ends before the answer leaves, so that a commit that fails
# is an error to the caller and a success is durable.
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]


async def _now() -> datetime:
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(_now)]


async def viewer(request: Request) -> Caller:
    """Any key or browser session; reads."""
    return _user(request, Role.VIEWER)


async def member(request: Request) -> Caller:
    """A key that may change things of its project."""
    return _user(request, Role.MEMBER)


async def admin(request: Request) -> Caller:
    """A key that may change everything."""
    return _user(request, Role.ADMIN)


async def node(request: Request) -> NodeCaller:
    """The daemon of a node; the path may name no other."""
    principal = _principal(request)
    if not isinstance(principal, NodeCaller):
        raise Forbidden("this is for node daemons: use a node credential")
    if request.path_params.get("node_id", principal.node_id) != principal.node_id:
        raise Forbidden("this credential belongs to another node")
    return principal


async def attempt(request: Request) -> AttemptCaller:
    """The supervisor of an attempt; the path may name no other."""
    principal = _principal(request)
    if not isinstance(principal, AttemptCaller):
        raise Forbidden("this is for supervisors: use an attempt token")
    if request.path_params.get("attempt_id", principal.attempt_id) != principal.attempt_id:
        raise Forbidden("this token belongs to another attempt")
    return principal


async def public() -> None:
    """Anybody; only for paths in the gate's allow-list."""


CALLERS: frozenset[object] = frozenset({viewer, member, admin, node, attempt, public})
"""Every way to say who may call a route."""


def find_callers(dependant: Dependant) -> set[object]:
    """Return who may call the route of `dependant`, as members of `CALLERS`."""
    found: set[object] = {dependant.call} if dependant.call in CALLERS else set()
    for dependency in dependant.dependencies:
        found |= find_callers(dependency)
    return found


CurrentCaller = Annotated[Caller, Depends(viewer)]
MemberCaller = Annotated[Caller, Depends(member)]
AdminCaller = Annotated[Caller, Depends(admin)]
PublicCaller = Annotated[None, Depends(public)]
CurrentNode = Annotated[NodeCaller, Depends(node)]
CurrentAttempt = Annotated[AttemptCaller, Depends(attempt)]


async def page(
    limit: Annotated[
        int, Query(ge=1, le=LIMIT_MAX, description="Entries of one page at most.")
    ] = LIMIT_DEFAULT,
    after: Annotated[
        str | None,
        Query(
            max_length=512, pattern=shapes.CURSOR, description="`next_cursor` of the page before."
        ),
    ] = None,
) -> Page:
    """Return the part of a list that is asked for."""
    return Page(limit, after)


PageDep = Annotated[Page, Depends(page)]


def _principal(request: Request) -> Principal | None:
    principal: Principal | None = request.scope["state"].get("principal")
    return principal


def _user(request: Request, role: Role) -> Caller:
    principal = _principal(request)
    if not isinstance(principal, Caller):
        raise Forbidden("this is for people and their programs: use an API key")
    principal.require(role)
    return principal
