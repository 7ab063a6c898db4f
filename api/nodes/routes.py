"""Nodes over HTTP, for users and operators: what there is, and whether it takes new work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.config import Timers
from api.deps import AdminCaller, ConfigDep, CurrentCaller, Now, PageDep, ReadSession, WriteSession
from api.nodes import schemas
from api.nodes.representation import represent_nodes
from api.pages import cut_page, read_after
from api.strict import StrictRoute
from models import Node, announce
from models.queries.faults import forget_faults
from models.queries.jobs import JOBS_TOPIC, node_topic
from scheduler.core.errors import NotFound

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], route_class=StrictRoute)


@router.get("", operation_id="nodes_list")
def list_(
    caller: CurrentCaller,
    page: PageDep,
    session: ReadSession,
    config: ConfigDep,
    now: Now,
    pool: Annotated[str | None, Query(max_length=128, description="Only of this pool.")] = None,
) -> schemas.NodeList:
    """List the machines that have joined."""
    statement = select(Node).order_by(Node.id).limit(page.limit + 1)
    if pool is not None:
        statement = statement.where(Node.pool == pool)
    after = read_after(config.signing_key, "nodes", page)
    if after is not None:
        statement = statement.where(Node.id > str(after))
    rows = session.scalars(statement).all()
    keys = [node.id for node in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "nodes", rows, keys, page.limit)
    data = represent_nodes(session, shown, now=now, silence_max=config.timers.silence_max)
    return schemas.NodeList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{node_id}", operation_id="nodes_get")
def get(
    node_id: str, caller: CurrentCaller, session: ReadSession, config: ConfigDep, now: Now
) -> schemas.Node:
    """Read a node."""
    node = _get_node(session, node_id)
    (shown,) = represent_nodes(session, [node], now=now, silence_max=config.timers.silence_max)
    return shown


@router.patch("/{node_id}", operation_id="nodes_update")
def update(
    node_id: str,
    patch: schemas.NodePatch,
    caller: AdminCaller,
    session: WriteSession,
    config: ConfigDep,
    now: Now,
) -> schemas.Node:
    """Say in which rack the node stands."""
    node = _get_node(session, node_id)
    node.rack = patch.rack
    return _changed(session, node, config.timers, now)


@router.post("/{node_id}/cordon", operation_id="nodes_cordon")
def cordon(
    node_id: str, caller: AdminCaller, session: WriteSession, config: ConfigDep, now: Now
) -> schemas.Node:
    """Give the node no new work; what runs there goes on."""
    return _mark(session, node_id, config.timers, now, is_cordoned=True)


@router.post("/{node_id}/uncordon", operation_id="nodes_uncordon")
def uncordon(
    node_id: str, caller: AdminCaller, session: WriteSession, config: ConfigDep, now: Now
) -> schemas.Node:
    """Let the node take new work again; its failures so far are forgotten."""
    forget_faults(session, _get_node(session, node_id))
    return _mark(session, node_id, config.timers, now, is_cordoned=False, is_draining=False)


@router.post("/{node_id}/drain", operation_id="nodes_drain")
def drain(
    node_id: str, caller: AdminCaller, session: WriteSession, config: ConfigDep, now: Now
) -> schemas.Node:
    """Give the node no new work, and let what runs there save and go on elsewhere."""
    return _mark(session, node_id, config.timers, now, is_cordoned=True, is_draining=True)


def _mark(
    session: Session, node_id: str, timers: Timers, now: datetime, **marks: bool
) -> schemas.Node:
    node = _get_node(session, node_id)
    for name, value in marks.items():
        setattr(node, name, value)
    return _changed(session, node, timers, now)


def _changed(session: Session, node: Node, timers: Timers, now: datetime) -> schemas.Node:
    announce(session, JOBS_TOPIC, node_topic(node.id))
    session.flush()
    (shown,) = represent_nodes(session, [node], now=now, silence_max=timers.silence_max)
    return shown


def _get_node(session: Session, node_id: str) -> Node:
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("this node")
    return node
