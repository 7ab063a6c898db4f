"""A node daemon says how it is and hears what is wanted of it; the call may wait for news."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.attempts.presence import Supervised, WantedHere, decide_wanted_here, end_lost
from api.attempts.writing import write
from api.auth.tokens import issue_attempt_token
from api.config import ApiConfig
from api.deps import ConfigDep, CurrentNode, DatabaseDep, StreamsDep
from api.nodes.schemas_worker import (
    AssignmentOut,
    HeartbeatIn,
    HeartbeatOut,
    NudgeOut,
    StopOut,
)
from api.nodes.told import Told
from api.streams import Streams
from api.strict import StrictRoute
from models import Database, Node, announce
from models.queries.jobs import JOBS_TOPIC, node_topic
from scheduler.core.errors import NotFound

router = APIRouter(tags=["worker"], route_class=StrictRoute)

WAIT_SECONDS_MAX = 30.0
# A node that answers many calls in a second is seen alive by one write.
_WRITE_PAUSE = timedelta(seconds=1)


@router.post(
    "/v1/nodes/{node_id}/heartbeat",
    operation_id="nodes_heartbeat",
    response_model=HeartbeatOut,
)
async def heartbeat(
    node_id: str,
    said: HeartbeatIn,
    caller: CurrentNode,
    config: ConfigDep,
    database: DatabaseDep,
    streams: StreamsDep,
    request: Request,
    wait: Annotated[
        float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for news.")
    ] = 0.0,
) -> Response:
    """Say how a node is; the answer names the attempts to start and those to stop.

    It comes at once when there is something to start or stop that has not been told just now,
    else after `wait` seconds.
    """
    supervisors = frozenset(
        Supervised(attempt_id=each.attempt_id, epoch=each.epoch) for each in said.supervisors
    )
    since = streams.count(node_topic(caller.node_id))
    deadline_s = time.monotonic() + wait
    await run_in_threadpool(_note, database, caller.node_id, said)

    async def look() -> WantedHere:
        return await run_in_threadpool(_look, database, caller.node_id, supervisors)

    told = _told(request, config)
    with streams.long_poll():
        wanted = await _wait_for_news(look, told, streams, caller.node_id, since, deadline_s)
    answer = _render(config, caller.node_id, wanted)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _wait_for_news(
    look: Callable[[], Awaitable[WantedHere]],
    told: Told,
    streams: Streams,
    node_id: str,
    since: int,
    deadline_s: float,
) -> WantedHere:
    """Return what is wanted as soon as some of it is news, or else at the deadline (monotonic).

    A nudge is told once; assignments and stops are repeated until the node has acted on them.
    """
    topic = node_topic(node_id)
    while True:
        wanted = await look()
        now_s = time.monotonic()
        states: list[Hashable] = [*wanted.assignments, *wanted.stops]
        new = told.find_new([*states, *wanted.nudges], now_s=now_s)
        if new or now_s >= deadline_s or streams.is_closing:
            nudges = tuple(each for each in wanted.nudges if each in new)
            told.note(states, now_s=now_s)
            told.note(nudges, now_s=now_s, for_s=math.inf)
            return dataclasses.replace(wanted, nudges=nudges)
        await streams.wait(topic, since=since, timeout_seconds=deadline_s - now_s)
        since = streams.count(topic)


def _told(request: Request, config: ApiConfig) -> Told:
    told: Told | None = getattr(request.app.state, "told", None)
    if told is None:
        told = request.app.state.told = Told(for_s=max(1.0, config.timers.heartbeat_seconds))
    return told


def _note(database: Database, node_id: str, said: HeartbeatIn) -> None:
    """Write what the daemon said, if it says anything new."""
    now = datetime.now(UTC)
    capacity, health = said.capacity.model_dump(), dict(said.health)
    with database.read() as session:
        node = session.get(Node, node_id)
    if node is None:
        raise NotFound("this node")
    news: dict[str, Any] = {
        "boot_id": said.boot_id,
        "version": said.version,
        "address": said.address,
        "capacity": capacity,
        "health": health,
    }
    has_changed = any(getattr(node, name) != value for name, value in news.items())
    is_recent = node.heartbeat_at is not None and now - node.heartbeat_at < _WRITE_PAUSE
    if not has_changed and is_recent and not said.ended:
        return

    def change(session: Session) -> None:
        values = {**(news if has_changed else {}), "heartbeat_at": now}
        session.execute(
            update(Node)
            .where(Node.id == node_id)
            .values(values)
            .execution_options(synchronize_session=False)
        )
        for each in said.ended:
            gone = Supervised(attempt_id=each.attempt_id, epoch=each.epoch)
            end_lost(session, node_id, gone, each.reason, each.message, now=now)
        if has_changed or node.heartbeat_at is None:
            announce(session, JOBS_TOPIC)  # there may be room now

    write(database, change)


def _look(database: Database, node_id: str, supervisors: frozenset[Supervised]) -> WantedHere:
    with database.read() as session:
        return decide_wanted_here(session, node_id, supervisors)


def _render(config: ApiConfig, node_id: str, wanted: WantedHere) -> HeartbeatOut:
    expires_at = datetime.now(UTC) + timedelta(seconds=config.timers.attempt_token_seconds)
    return HeartbeatOut(
        assignments=[
            AssignmentOut(
                attempt_id=each.attempt_id,
                epoch=each.epoch,
                token=issue_attempt_token(
                    config.signing_key, each.attempt_id, node_id, each.epoch, expires_at
                ),
            )
            for each in wanted.assignments
        ],
        stops=[
            StopOut(
                attempt_id=each.supervised.attempt_id,
                epoch=each.supervised.epoch,
                reason=each.reason,
                grace_seconds=each.grace_seconds,
            )
            for each in wanted.stops
        ],
        nudges=[NudgeOut(attempt_id=each.supervised.attempt_id) for each in wanted.nudges],
        interval_seconds=config.timers.heartbeat_seconds,
    )
