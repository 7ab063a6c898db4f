"""What supervisors report of their attempt besides its end: events of the job. Knows no HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from api.telemetry import redact_text
from models import Event
from models.queries.jobs import record_event


def keep_report(
    session: Session,
    member: Membership,
    *,
    sequence: int,
    kind: str,
    message: str,
    data: dict[str, Any],
    now: datetime,
) -> None:
    """Make an event `attempt.<kind>` of a report; the same report again changes nothing.

    Args:
        sequence: counts the reports of this node's supervisor from 0.
        data: JSON values; credentials are taken out of its texts.
    """
    event_type = f"attempt.{kind}"
    place = {
        "attempt_id": member.attempt.id,
        "attempt": member.attempt.number,
        "node_id": member.node.node_id,
        "sequence": sequence,
    }
    known = session.scalars(
        select(Event.data).where(Event.job_id == member.job.id, Event.type == event_type)
    )
    if any(all(each.get(name) == value for name, value in place.items()) for each in known):
        return
    said = redact_text(message)
    data = {**place, **_redact(data)}
    record_event(session, member.job, event_type, now=now, data=data, message=said)


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {name: _redact(part) for name, part in value.items()}
    return [_redact(part) for part in value] if isinstance(value, list) else value
