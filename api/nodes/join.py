"""A machine joins the cluster and gets its credential."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.auth.tokens import hash_secret, new_node_credential
from api.deps import AdminCaller, DatabaseDep
from api.nodes.schemas_worker import NodeJoin, NodeJoined
from api.strict import StrictRoute
from models import Database, Node, Pool, Queue, announce, new_id
from models.queries.jobs import JOBS_TOPIC

router = APIRouter(tags=["nodes"], route_class=StrictRoute)


@router.post(
    "/v1/nodes",
    operation_id="nodes_join",
    status_code=HTTPStatus.CREATED,
    responses={200: {"model": NodeJoined, "description": "The name was known."}},
)
async def join(
    asked: NodeJoin,
    caller: AdminCaller,
    database: DatabaseDep,
    request: Request,
    response: Response,
) -> NodeJoined:
    """Make a node, or give a known one a new credential. A new pool is made, with its queue."""
    joined, is_new = await run_in_threadpool(_join, database, asked)
    request.app.state.credentials.forget_all()  # the old credential is dead from now on
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    response.headers["location"] = f"/v1/nodes/{joined.id}"
    response.headers["cache-control"] = "no-store"
    return joined


def _join(database: Database, asked: NodeJoin) -> tuple[NodeJoined, bool]:
    credential = new_node_credential()
    with database.write() as session:
        _ensure_pool(session, asked.pool)
        node = session.scalar(select(Node).where(Node.name == asked.name))
        is_new = node is None
        if node is None:
            now = datetime.now(UTC)
            node = Node(id=new_id("node"), name=asked.name, pool=asked.pool, created_at=now)
            session.add(node)
        node.pool, node.credential_sha256 = asked.pool, hash_secret(credential)
        announce(session, JOBS_TOPIC)
        joined = NodeJoined(id=node.id, name=node.name, pool=node.pool, credential=credential)
    return joined, is_new


def _ensure_pool(session: Session, name: str) -> None:
    if session.get(Pool, name) is not None:
        return
    now = datetime.now(UTC)
    session.add(Pool(name=name, created_at=now))
    session.flush()
    if session.get(Queue, name) is None:
        session.add(Queue(name=name, pool=name, is_open=True, created_at=now))
        session.flush()
