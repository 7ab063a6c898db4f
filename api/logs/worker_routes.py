"""Supervisors append what their ranks print."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from api.attempts.writing import write_as
from api.deps import CurrentAttempt
from api.errors import problem_responses
from api.logs.ingest import APPEND_BYTES_MAX, append_log
from api.strict import StrictRoute, read_body

router = APIRouter(prefix="/v1/attempts", tags=["worker"], route_class=StrictRoute)

OFFSET_MAX = 2**62


class LogLength(BaseModel):
    """How long the log is now."""

    length: int = Field(ge=0, description="Bytes.", examples=[4096])


@router.put(
    "/{attempt_id}/logs/{rank}/{stream}",
    operation_id="attempts_append_log",
    response_model=LogLength,
    responses=problem_responses(409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"The next bytes of the log, at most {APPEND_BYTES_MAX}.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def append(
    attempt_id: str,
    rank: Annotated[int, Path(ge=0, le=999_999)],
    stream: Literal["stdout", "stderr"],
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAX, description="Where the bytes belong.")],
    caller: CurrentAttempt,
    request: Request,
) -> Response:
    """Append bytes to a rank's log. Offered at another place than its end: 409 with `length`."""
    data = await read_body(request, APPEND_BYTES_MAX)

    def change(session: Session, member: Membership, now: datetime) -> int:
        return append_log(
            session, member, rank=rank, stream=stream, offset=offset, data=data, now=now
        )

    length = await write_as(request, caller, change)
    return Response(b'{"length":%d}' % length, media_type="application/json")
