"""Pools over HTTP: how much room there is where."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.config import ApiConfig
from api.deps import ConfigDep, CurrentCaller, Now, PageDep, ReadSession
from api.nodes.representation import add_room, represent_nodes
from api.nodes.schemas import NodeState
from api.pages import cut_page, read_after
from api.pools import schemas
from api.strict import StrictRoute
from models import Node, Pool
from scheduler.core.errors import NotFound

router = APIRouter(prefix="/v1/pools", tags=["pools"], route_class=StrictRoute)


@router.get("", operation_id="pools_list")
def list_(
    caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep, now: Now
) -> schemas.PoolList:
    """List the pools by name."""
    statement = select(Pool).order_by(Pool.name).limit(page.limit + 1)
    after = read_after(config.signing_key, "pools", page)
    if after is not None:
        statement = statement.where(Pool.name > str(after))
    rows = session.scalars(statement).all()
    keys = [pool.name for pool in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "pools", rows, keys, page.limit)
    data = _represent(session, shown, config, now)
    return schemas.PoolList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{name}", operation_id="pools_get")
def get(
    name: str, caller: CurrentCaller, session: ReadSession, config: ConfigDep, now: Now
) -> schemas.Pool:
    """Read a pool."""
    pool = session.get(Pool, name)
    if pool is None:
        raise NotFound("this pool")
    (shown,) = _represent(session, [pool], config, now)
    return shown


def _represent(
    session: Session, pools: Sequence[Pool], config: ApiConfig, now: datetime
) -> list[schemas.Pool]:
    names = [pool.name for pool in pools]
    rows = session.scalars(select(Node).where(Node.pool.in_(names))).all()
    nodes = represent_nodes(session, rows, now=now, silence_max=config.timers.silence_max)
    shown = []
    for pool in pools:
        here = [node for node in nodes if node.pool == pool.name]
        ready = [node for node in here if node.state is NodeState.READY]
        shown.append(
            schemas.Pool(
                name=pool.name,
                num_nodes=len(here),
                num_nodes_ready=len(ready),
                capacity=add_room([node.capacity for node in ready]),
                free=add_room([node.free for node in ready]),
                created_at=pool.created_at,
            )
        )
    return shown
