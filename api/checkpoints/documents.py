"""From rows to the documents that users get. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from api.checkpoints.schemas import CheckpointFileOut, CheckpointOut
from models import Checkpoint, CheckpointFile


def render_checkpoint(
    checkpoint: Checkpoint, files: Iterable[CheckpointFile], *, attempt: int
) -> CheckpointOut:
    """Return the document of a checkpoint.

    Args:
        attempt: number of the attempt that made it.
    """
    root = f"/v1/checkpoints/{checkpoint.id}"
    return CheckpointOut(
        id=checkpoint.id,
        job_id=checkpoint.job_id,
        attempt_id=checkpoint.attempt_id,
        attempt=attempt,
        step=checkpoint.step,
        metrics=checkpoint.metrics,
        state=checkpoint.state.value,
        size_bytes=checkpoint.size_bytes,
        pinned=checkpoint.is_pinned,
        files=[
            CheckpointFileOut(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                url=f"{root}/files/{quote(file.path)}",
            )
            for file in files
        ],
        archive_url=f"{root}/archive",
        created_at=checkpoint.created_at,
        committed_at=checkpoint.committed_at,
        verified_at=checkpoint.verified_at,
    )
