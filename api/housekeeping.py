"""Finishing what a crash has left half done, and removing what has expired.

Every step is right at any time and when run twice: it acts on marks and ages that are in the
database or on disk, never on what this process remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from api.checkpoints.expiry import list_crowded_jobs, mark_expired
from api.checkpoints.removal import finish_deletions
from api.idempotency import KEPT
from api.storage import LocalStorage
from models import (
    Attempt,
    Base,
    BrowserSession,
    Checkpoint,
    CheckpointState,
    Database,
    File,
    IdempotencyRecord,
    Job,
)

# Nobody writes to staged bytes for so long: a stalled sender is cut off long before.
STAGED_KEPT = timedelta(hours=1)
# Bytes are durable moments before their row; this much later there will be no row.
ORPHANS_KEPT = timedelta(hours=1)
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one round has removed."""

    checkpoints: int = 0
    orphans: int = 0
    staged: int = 0
    idempotency_records: int = 0
    browser_sessions: int = 0


def run_once(database: Database, storage: LocalStorage, now: datetime) -> Swept:
    """Do one round.

    Raises:
        ServiceError: the disk fails; what was not done is done in a later round.
    """
    with database.write() as session:
        _mark_abandoned(session)
        records = _delete(session, IdempotencyRecord, IdempotencyRecord.created_at < now - KEPT)
        sessions = _delete(session, BrowserSession, BrowserSession.expires_at < now)
    _mark_outlived(database)
    checkpoints = finish_deletions(database, storage, _list_marked(database))
    staged = storage.sweep_staging(older_than=(now - STAGED_KEPT).timestamp())
    orphans = _sweep_orphans(database, storage, older_than=(now - ORPHANS_KEPT).timestamp())
    return Swept(
        checkpoints=checkpoints,
        orphans=orphans,
        staged=staged,
        idempotency_records=records,
        browser_sessions=sessions,
    )


def _mark_abandoned(session: Session) -> None:
    """Mark checkpoints whose upload nobody can finish: their attempt has ended."""
    ended = select(Attempt.id).where(Attempt.ended_at.is_not(None))
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.state == CheckpointState.UPLOADING, Checkpoint.attempt_id.in_(ended))
        .values(state=CheckpointState.DELETING)
        .execution_options(synchronize_session=False)
    )


def _mark_outlived(database: Database) -> None:
    """Mark checkpoints that were kept for an attempt alone which has ended, however it did."""
    with database.read() as session:
        crowded = list_crowded_jobs(session)
    for job_id in crowded:
        with database.write() as session:
            job = session.get(Job, job_id)
            if job is not None:
                mark_expired(session, job)


def _delete(session: Session, table: type[Base], condition: ColumnElement[bool]) -> int:
    deleted = session.execute(delete(table).where(condition))
    return int(deleted.rowcount)  # type: ignore[attr-defined]  # a DELETE gives a cursor result


def _list_marked(database: Database) -> list[str]:
    marked = select(Checkpoint.id).where(Checkpoint.state == CheckpointState.DELETING)
    with database.read() as session:
        return list(session.scalars(marked))


def _sweep_orphans(database: Database, storage: LocalStorage, *, older_than: float) -> int:
    """Remove bytes that no row names, unless they are so young that their row may come."""
    num_swept = 0
    for owner_ids in _batched(storage.iter_owners(older_than=older_than)):
        with database.read() as session:
            known = _list_known(session, owner_ids)
        for owner_id in owner_ids:
            if owner_id not in known:
                storage.delete(owner_id)
                num_swept += 1
    return num_swept


def _batched(owner_ids: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(owner_ids, _BATCH)):
        yield batch


def _list_known(session: Session, owner_ids: Iterable[str]) -> set[str]:
    ids = list(owner_ids)
    files = session.scalars(select(File.id).where(File.id.in_(ids)))
    checkpoints = session.scalars(select(Checkpoint.id).where(Checkpoint.id.in_(ids)))
    return {*files, *checkpoints}
