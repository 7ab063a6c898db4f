"""Exporting a checkpoint: the job that writes its weights into one file. Knows no HTTP.

The job is one like any other, of the recipe `export`: it waits for room, is watched, cancelled and
tried again as others are, and the file is a checkpoint of it, served with ranges and hashes. So
the service itself never reads a tensor.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.checkpoints.care import get_visible_checkpoint
from api.checkpoints.schemas import ExportRequest
from models import CheckpointFile, CheckpointState, Job, Project
from scheduler.core.errors import Conflict, NotFound

RECIPE = "export"
SUFFIX = ".safetensors"


class NoWeights(Conflict):
    """The checkpoint holds nothing that could be exported."""

    code = "no_weights"


def plan_export(
    session: Session, caller: Caller, checkpoint_id: str, request: ExportRequest
) -> dict[str, Any]:
    """Return the spec of the job that exports a checkpoint, where the job that made it ran.

    Raises:
        NotFound: there is no such checkpoint, or it is damaged.
        NoWeights: no file of it is one of weights.
    """
    checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
    job = session.get(Job, checkpoint.job_id)
    project = session.get(Project, checkpoint.project_id)
    if checkpoint.state is not CheckpointState.COMMITTED or job is None or project is None:
        raise NotFound("this checkpoint as it was saved")
    paths = session.scalars(
        select(CheckpointFile.path).where(CheckpointFile.checkpoint_id == checkpoint.id)
    )
    if not any(path.endswith(SUFFIX) for path in paths):
        raise NoWeights(
            f"{checkpoint.id} has no {SUFFIX} file, and other files are not read: save the "
            "weights with trainmaster.train or safetensors, or download it as it is"
        )
    return {
        "recipe": RECIPE,
        "project": project.name,
        "resume_from": checkpoint.id,
        "config": {"dtype": request.dtype},
        "workers": 1,
        "resources": {"gpus": 0},
        "checkpoint": {"keep_last": 1},
        "queue": job.queue,
        "pool": job.pool,
    }
