"""What users do to a checkpoint: pin, verify, delete. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from api.attempts.writing import write
from api.auth.callers import Caller
from api.checkpoints.receive import list_files
from api.checkpoints.removal import finish_deletions
from api.storage import LocalStorage, ObjectKey
from models import Checkpoint, CheckpointFile, CheckpointState, Database, Job
from models.queries.checkpoints import list_needed_ids, select_committed
from models.queries.jobs import record_event
from scheduler.core.errors import Conflict, NotFound

_SHOWN = frozenset({CheckpointState.COMMITTED, CheckpointState.CORRUPT})


class CheckpointInUse(Conflict):
    """Something still needs the checkpoint."""

    code = "checkpoint_in_use"


def get_visible_checkpoint(session: Session, caller: Caller, checkpoint_id: str) -> Checkpoint:
    """Return a checkpoint that exists as a whole and that the caller may see.

    Raises:
        NotFound: there is none.
    """
    found = session.get(Checkpoint, checkpoint_id)
    if found is None or found.state not in _SHOWN or not caller.may_see(found.project_id):
        raise NotFound("this checkpoint")
    return found


def find_damaged(
    storage: LocalStorage, checkpoint_id: str, files: Sequence[CheckpointFile]
) -> list[str]:
    """Return the paths whose bytes are not those that were committed. Reads every byte."""
    return [
        file.path
        for file in files
        if storage.hash(ObjectKey(checkpoint_id, file.sha256)) != file.sha256
    ]


def verify_checkpoint(
    database: Database,
    storage: LocalStorage,
    caller: Caller,
    checkpoint_id: str,
    *,
    now: datetime,
) -> list[str]:
    """Hash all files and keep the result; return the damaged paths.

    A damaged checkpoint is no longer listed, and no attempt resumes from it.
    """
    with database.read() as session:
        checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
        files = list_files(session, checkpoint.id)
    damaged = find_damaged(storage, checkpoint_id, files)

    def keep(session: Session) -> None:
        found = get_visible_checkpoint(session, caller, checkpoint_id)
        found.verified_at = now
        if damaged and found.state is CheckpointState.COMMITTED:
            found.state = CheckpointState.CORRUPT
            job = session.get(Job, found.job_id)
            if job is not None:
                data = {"checkpoint_id": found.id, "step": found.step, "paths": damaged[:20]}
                record_event(session, job, "checkpoint.corrupt", now=now, data=data)

    write(database, keep)
    return damaged


def set_pinned(database: Database, caller: Caller, checkpoint_id: str, *, is_pinned: bool) -> None:
    """Keep a checkpoint whatever the job's policy says, or no longer."""

    def change(session: Session) -> None:
        get_visible_checkpoint(session, caller, checkpoint_id).is_pinned = is_pinned

    write(database, change)


def delete_checkpoint(
    database: Database, storage: LocalStorage, caller: Caller, checkpoint_id: str
) -> None:
    """Remove a checkpoint.

    Raises:
        CheckpointInUse: it is pinned, a job will resume from it, or it is the newest of a job
            that has not ended.
    """

    def mark(session: Session) -> None:
        checkpoint = get_visible_checkpoint(session, caller, checkpoint_id)
        _check_unneeded(session, checkpoint)
        checkpoint.state = CheckpointState.DELETING

    write(database, mark)
    finish_deletions(database, storage, [checkpoint_id])


def _check_unneeded(session: Session, checkpoint: Checkpoint) -> None:
    if checkpoint.is_pinned:
        raise CheckpointInUse(f"{checkpoint.id} is pinned: unpin it first")
    if list_needed_ids(session, [checkpoint.id]):
        raise CheckpointInUse(f"a job resumes from {checkpoint.id}: wait until it has ended")
    job = session.get(Job, checkpoint.job_id)
    newest = session.scalar(select_committed(checkpoint.job_id).limit(1))
    is_newest = newest is not None and newest.id == checkpoint.id
    if is_newest and job is not None and not job.is_terminal:
        raise CheckpointInUse(
            f"{checkpoint.id} is the newest of a job that has not ended: cancel the job first"
        )
