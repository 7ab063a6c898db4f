"""Deleting checkpoints: a durable mark, then the bytes, then the rows. Right when cut off anywhere.

What is marked is finished later if this process dies; see `api.housekeeping`.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy import delete

from api.storage import LocalStorage
from models import Checkpoint, CheckpointState, Database
from scheduler.core.errors import ServiceError

log = structlog.get_logger()


def finish_deletions(
    database: Database, storage: LocalStorage, checkpoint_ids: Sequence[str]
) -> int:
    """Remove the bytes of checkpoints that are marked, then their rows; return how many went.

    A disk that refuses is no error here: the mark stays, and the next round tries again.
    """
    gone = []
    for checkpoint_id in checkpoint_ids:
        try:
            storage.delete(checkpoint_id)
        except ServiceError as error:
            log.warning("checkpoint not deleted", checkpoint_id=checkpoint_id, cause=error.message)
        else:
            gone.append(checkpoint_id)
    if gone:
        with database.write() as session:
            session.execute(
                delete(Checkpoint).where(
                    Checkpoint.id.in_(gone), Checkpoint.state == CheckpointState.DELETING
                )
            )
    return len(gone)
