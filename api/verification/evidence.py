"""What two finished jobs left behind, read from rows and from one small file of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.metrics.points import unpack_steps
from api.storage import LocalStorage, ObjectKey
from api.verification.verdict import Evidence, FilePair, pair_metrics
from models import Attempt, Checkpoint, CheckpointFile, Event, Job, MetricChunk
from models.queries.checkpoints import select_committed
from scheduler.core.errors import ServiceError

META = "meta.json"
_META_BYTES_MAX = 4 * 1024 * 1024
# What of it is no state: metrics may measure time, and versions are those of this machine.
_NO_STATE = ("metrics", "versions")
_CHUNKS_READ = 64


def find_final(session: Session, job: Job) -> Checkpoint | None:
    """Return the checkpoint that a job has ended with."""
    return session.scalar(select_committed(job.id).limit(1))


def find_killed_step(session: Session, job: Job) -> int | None:
    """Return how far the attempt before the last one had come."""
    progress = session.scalar(
        select(Attempt.progress).where(
            Attempt.job_id == job.id, Attempt.number == job.num_attempts - 1
        )
    )
    return None if progress is None else progress.get("step")


def gather_evidence(
    session: Session,
    storage: LocalStorage,
    reference: Checkpoint,
    interrupted: Checkpoint,
    *,
    tolerance: float,
    metric: str | None,
) -> Evidence:
    """Return what the final checkpoints of the two jobs show.

    Args:
        metric: the only one that counts, None for all that say how good the model is.
    """
    last = session.scalars(
        select(Attempt)
        .where(Attempt.job_id == interrupted.job_id)
        .order_by(Attempt.number.desc())
        .limit(1)
    ).one()
    files = [_read_hashes(session, one) for one in (reference, interrupted)]
    is_meta_same = _is_meta_same(
        storage, (reference.id, files[0].get(META)), (interrupted.id, files[1].get(META))
    )
    pairs = [
        FilePair(
            path=path,
            reference_sha256=files[0].get(path),
            interrupted_sha256=files[1].get(path),
            is_same=files[0].get(path) == files[1].get(path) or (path == META and is_meta_same),
        )
        for path in sorted({*files[0], *files[1]})
    ]
    return Evidence(
        steps=(reference.step, interrupted.step),
        resumed_step=_find_resumed_step(session, last),
        first_step_after=_find_first_step(session, last),
        files=tuple(pairs),
        metrics=pair_metrics(
            reference.metrics, interrupted.metrics, tolerance=tolerance, only=metric
        ),
    )


def _read_hashes(session: Session, checkpoint: Checkpoint) -> dict[str, str]:
    rows = session.execute(
        select(CheckpointFile.path, CheckpointFile.sha256).where(
            CheckpointFile.checkpoint_id == checkpoint.id
        )
    )
    return {row.path: row.sha256 for row in rows}


def _find_resumed_step(session: Session, attempt: Attempt) -> int | None:
    """Return the step of the own checkpoint that an attempt began with.

    The checkpoint itself may be gone; that it was committed stays in the job's history.
    """
    if attempt.resume_checkpoint_id is None:
        return None
    data = session.scalar(
        select(Event.data).where(
            Event.job_id == attempt.job_id,
            Event.type == "checkpoint.committed",
            Event.data["checkpoint_id"].as_string() == attempt.resume_checkpoint_id,
        )
    )
    return None if data is None else int(data["step"])


def _find_first_step(session: Session, attempt: Attempt) -> int | None:
    """Return the least step among the first points that an attempt measured."""
    chunks = session.scalars(
        select(MetricChunk.steps)
        .where(MetricChunk.attempt_id == attempt.id)
        .order_by(MetricChunk.id)
        .limit(_CHUNKS_READ)
    )
    return min((min(unpack_steps(steps)) for steps in chunks if steps), default=None)


def _is_meta_same(
    storage: LocalStorage, one: tuple[str, str | None], other: tuple[str, str | None]
) -> bool:
    states = [_read_meta_state(storage, *each) for each in (one, other)]
    return states[0] is not None and states[0] == states[1]


def _read_meta_state(
    storage: LocalStorage, checkpoint_id: str, sha256: str | None
) -> Mapping[str, Any] | None:
    """Return what is state in the `meta.json` of trainmaster.train; None of any other file."""
    if sha256 is None:
        return None
    try:
        with storage.open(ObjectKey(checkpoint_id, sha256)) as file:
            text = file.read(_META_BYTES_MAX + 1)
        meta = json.loads(text) if len(text) <= _META_BYTES_MAX else None
    except (ServiceError, OSError, ValueError, RecursionError):
        return None
    if not isinstance(meta, dict) or not {"format", "world_size", *_NO_STATE} <= meta.keys():
        return None
    return {name: value for name, value in meta.items() if name not in _NO_STATE}
