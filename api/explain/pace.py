"""How long the steps of jobs like one took. Reads rows, decides nothing.

Alike are jobs of one project with the same recipe, configuration, layout and pool; only how their
replicas were joined may differ. What such a job waited for communication it has said itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.metrics.points import unpack
from models import Attempt, Job, MetricChunk
from scheduler.core.spec import JobSpec, read_spec
from scheduler.core.states import JobState

_LOOKED_AT_MAX = 50
_EXPOSED = "comm/exposed_seconds"


@dataclass(frozen=True, slots=True)
class Pace:
    """What one job's steps took, in seconds, at its end.

    Attributes:
        compute_s: of a step, without waiting for communication.
        job_id: whose.
    """

    compute_s: float
    job_id: str


def find_pace(session: Session, project_id: str, spec: JobSpec) -> Pace | None:
    """Return the pace of the last job like `spec` that succeeded, None without one."""
    if spec.recipe is None:
        return None  # of code by somebody nobody knows whether it is the same
    rows = session.execute(
        select(Job.id, Job.spec, Attempt.id, Attempt.progress)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(
            Job.project_id == project_id,
            Job.recipe == spec.recipe,
            Job.state == JobState.SUCCEEDED,
            Attempt.progress.is_not(None),
        )
        .order_by(Job.id.desc(), Attempt.number.desc())
        .limit(_LOOKED_AT_MAX)
    )
    for job_id, document, attempt_id, progress in rows:
        rate = (progress or {}).get("steps_per_second")
        if rate and _is_alike(read_spec(document), spec):
            waited_s = _last_value(session, job_id, attempt_id) if spec.num_workers > 1 else 0.0
            if waited_s is not None:
                return Pace(max(0.0, 1 / rate - waited_s), job_id)
    return None


def _is_alike(one: JobSpec, other: JobSpec) -> bool:
    return (one.config, one.num_workers, one.parallel, one.pool, one.resources, one.inputs) == (
        other.config, other.num_workers, other.parallel, other.pool, other.resources, other.inputs
    )  # fmt: skip


def _last_value(session: Session, job_id: str, attempt_id: str) -> float | None:
    chunk = session.scalar(
        select(MetricChunk)
        .where(
            MetricChunk.job_id == job_id,
            MetricChunk.attempt_id == attempt_id,
            MetricChunk.key == _EXPOSED,
            MetricChunk.rank == 0,
        )
        .order_by(MetricChunk.id.desc())
        .limit(1)
    )
    if chunk is None:
        return None
    return unpack(chunk.steps, chunk.times, chunk.values).values[-1]
