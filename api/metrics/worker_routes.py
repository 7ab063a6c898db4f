"""Supervisors send metric points, in batches."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api import shapes
from api.attempts.fence import Membership
from api.attempts.writing import write_as
from api.deps import CurrentAttempt
from api.errors import problem_responses
from api.metrics.batch import parse_batch
from api.metrics.store import store_batch
from api.strict import StrictRoute, check_json_type, read_body

router = APIRouter(prefix="/v1/attempts", tags=["worker"], route_class=StrictRoute)


class HighWater(BaseModel):
    """How much of the stream is stored."""

    high_water: int = Field(ge=0, description="Lines of the stream.", examples=[400])


# Only for the document: batches are checked a column at a time (see api.metrics.batch).
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_COLUMN = {
    "title": "MetricColumns",
    "type": "object",
    "additionalProperties": False,
    "required": ["steps", "times", "values"],
    "properties": {
        "steps": {"type": "array", "items": {"type": "integer"}},
        "times": {"type": "array", "items": {"type": "number"}, "description": "Unix seconds."},
        "values": {"type": "array", "items": _NUMBER},
    },
}
_BATCH = {
    "title": "MetricBatch",
    "type": "object",
    "additionalProperties": False,
    "required": ["stream", "sequence", "count", "columns"],
    "properties": {
        "stream": {
            "type": "string",
            "pattern": shapes.RANK,
            "description": "The rank.",
        },
        "sequence": {
            "type": "integer",
            "minimum": 0,
            "description": "Lines of the stream before this batch.",
        },
        "count": {"type": "integer", "minimum": 0, "description": "Lines in this batch."},
        "columns": {"type": "object", "additionalProperties": _COLUMN},
    },
}


@router.post(
    "/{attempt_id}/metrics",
    operation_id="attempts_add_metrics",
    response_model=HighWater,
    responses=problem_responses(409, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "At most 10,000 points.",
            "content": {"application/json": {"schema": _BATCH}},
        }
    },
)
async def add(attempt_id: str, caller: CurrentAttempt, request: Request) -> Response:
    """Store a batch of points. What is stored already is not stored again.

    A batch that does not start at the high-water mark: 409 with `high_water`.
    """
    body = await read_body(request)
    check_json_type(request)

    def change(session: Session, member: Membership, now: datetime) -> int:
        return store_batch(session, member, batch)

    batch = parse_batch(body)
    high_water = await write_as(request, caller, change)
    return Response(b'{"high_water":%d}' % high_water, media_type="application/json")
