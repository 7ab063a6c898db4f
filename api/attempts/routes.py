"""The attempts of a job, for its users."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.attempts.schemas_user import AttemptList, AttemptNodeOut, AttemptOut
from api.deps import ConfigDep, CurrentCaller, PageDep, ReadSession
from api.pages import cut_page, read_after
from api.strict import StrictRoute
from api.visibility import get_visible_job
from models import Attempt, AttemptNode, Node

router = APIRouter(tags=["attempts"], route_class=StrictRoute)


@router.get("/v1/jobs/{job_id}/attempts", operation_id="jobs_list_attempts")
def list_attempts(
    job_id: str, caller: CurrentCaller, session: ReadSession, config: ConfigDep, page: PageDep
) -> AttemptList:
    """Return the attempts of a job, oldest first, with how they ended on each node."""
    job = get_visible_job(session, caller, job_id)
    list_name = f"attempts:{job.id}"
    statement = select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number)
    after = read_after(config.signing_key, list_name, page)
    if after is not None:
        statement = statement.where(Attempt.number > int(after))
    rows = session.scalars(statement.limit(page.limit + 1)).all()
    keys = [attempt.number for attempt in rows]
    shown, has_more, cursor = cut_page(config.signing_key, list_name, rows, keys, page.limit)
    return AttemptList(data=_render(session, shown), has_more=has_more, next_cursor=cursor)


def _render(session: Session, attempts: Sequence[Attempt]) -> list[AttemptOut]:
    rows = session.execute(
        select(AttemptNode, Node.name)
        .join(Node, Node.id == AttemptNode.node_id)
        .where(AttemptNode.attempt_id.in_([attempt.id for attempt in attempts]))
        .order_by(AttemptNode.node_rank)
    )
    nodes: dict[str, list[AttemptNodeOut]] = {}
    for node, name in rows:
        nodes.setdefault(node.attempt_id, []).append(_render_node(node, name))
    return [
        AttemptOut(
            id=attempt.id,
            job_id=attempt.job_id,
            number=attempt.number,
            state=attempt.state.value,
            reason=attempt.reason,
            message=attempt.message,
            nodes=nodes.get(attempt.id, []),
            progress=attempt.progress,
            resumed_from=attempt.resume_checkpoint_id,
            created_at=attempt.created_at,
            started_at=attempt.started_at,
            finished_at=attempt.ended_at,
        )
        for attempt in attempts
    ]


def _render_node(node: AttemptNode, name: str) -> AttemptNodeOut:
    return AttemptNodeOut(
        node_id=node.node_id,
        name=name,
        node_rank=node.node_rank,
        ranks=[rank["rank"] for rank in node.ranks],
        gpu_indices=[index for rank in node.ranks for index in rank["gpu_indices"]],
        phase=node.phase,
        outcome=node.outcome,
        exit=node.exit,
        exited_at=node.exited_at,
    )
