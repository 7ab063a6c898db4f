"""A checkpoint comes in: announced, uploaded, committed. Knows no HTTP.

The order is what makes it whole or absent after a crash at any line: bytes are durable before the
row says `committed`, and a mark is durable before bytes go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from api.attempts.fence import Membership, Ticket, check_live
from api.attempts.writing import write
from api.checkpoints.expiry import mark_expired
from api.checkpoints.manifest import ManifestFile, check_files
from api.checkpoints.removal import finish_deletions
from api.storage import LocalStorage, ObjectKey
from models import (
    Checkpoint,
    CheckpointFile,
    CheckpointState,
    Database,
    Event,
    new_id,
)
from models.queries.jobs import record_event
from scheduler.core.errors import Conflict, Invalid, NotFound

F = TypeVar("F", CheckpointFile, ManifestFile)

_OPEN_MAX = 64


class ManifestMismatch(Conflict):
    """The name came with another manifest before."""

    code = "manifest_mismatch"


class FilesMissing(Conflict):
    """Not every file of the manifest has been uploaded."""

    code = "files_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a supervisor says of a checkpoint before it uploads it."""

    name: str
    step: int
    metrics: Mapping[str, Any]
    files: Sequence[ManifestFile]


@dataclass(frozen=True, slots=True)
class Begun:
    """A checkpoint that was announced, and whether there is nothing left to send."""

    checkpoint_id: str
    _: KW_ONLY
    is_committed: bool


def begin_checkpoint(
    session: Session, member: Membership, announced: Announcement, *, now: datetime
) -> Begun:
    """Return the checkpoint of this name in the attempt, made if it is new.

    One that was committed stays so, even when the job's policy has removed it since: who did not
    hear of the commit sends nothing again.

    Raises:
        Invalid: the manifest breaks the rules.
        ManifestMismatch: the name was used with another manifest.
    """
    found = session.scalar(
        select(Checkpoint).where(
            Checkpoint.attempt_id == member.attempt.id, Checkpoint.name == announced.name
        )
    )
    if found is not None:
        known = {
            (file.path, file.size_bytes, file.sha256) for file in list_files(session, found.id)
        }
        told = {(file.path, file.size_bytes, file.sha256) for file in announced.files}
        if known != told or found.step != announced.step:
            raise ManifestMismatch(f"{announced.name} was begun with another manifest")
        return Begun(found.id, is_committed=found.state is not CheckpointState.UPLOADING)
    removed_id = _find_removed(session, member, announced.name)
    if removed_id is not None:
        return Begun(removed_id, is_committed=True)
    problems = check_files(announced.files)
    if problems:
        raise Invalid("the manifest has problems: see `errors`", problems=problems)
    _check_open(session, member)
    checkpoint = Checkpoint(
        id=new_id("ckpt"),
        job_id=member.job.id,
        attempt_id=member.attempt.id,
        project_id=member.job.project_id,
        name=announced.name,
        step=announced.step,
        metrics=dict(announced.metrics),
        state=CheckpointState.UPLOADING,
        size_bytes=sum(file.size_bytes for file in announced.files),
        created_at=now,
    )
    session.add(checkpoint)
    session.flush()
    session.execute(
        insert(CheckpointFile),
        [
            {
                "checkpoint_id": checkpoint.id,
                "path": file.path,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
            }
            for file in announced.files
        ],
    )
    return Begun(checkpoint.id, is_committed=False)


def _find_removed(session: Session, member: Membership, name: str) -> str | None:
    """Return the id under which a checkpoint was once committed; the job's history knows."""
    found: str | None = session.scalar(
        select(Event.data["checkpoint_id"].as_string()).where(
            Event.job_id == member.job.id,
            Event.type == "checkpoint.committed",
            Event.data["attempt_id"].as_string() == member.attempt.id,
            Event.data["name"].as_string() == name,
        )
    )
    return found


def find_missing(storage: LocalStorage, checkpoint_id: str, files: Sequence[F]) -> list[F]:
    """Return the files whose bytes are not there yet."""
    return [
        file
        for file in files
        if storage.find_size(ObjectKey(checkpoint_id, file.sha256)) != file.size_bytes
    ]


def get_upload(
    session: Session, member: Membership, checkpoint_id: str, path: str
) -> tuple[Checkpoint, CheckpointFile]:
    """Return a checkpoint of this attempt and the file of it that is to be uploaded.

    Raises:
        NotFound: the attempt has no such checkpoint, or that has no such file.
    """
    checkpoint = get_own(session, member, checkpoint_id)
    file = session.get(CheckpointFile, (checkpoint_id, path))
    if file is None:
        raise NotFound("this checkpoint file")
    return checkpoint, file


def get_own(session: Session, member: Membership, checkpoint_id: str) -> Checkpoint:
    """Return a checkpoint that this attempt has begun.

    Raises:
        NotFound: it has begun no such checkpoint.
    """
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None or checkpoint.attempt_id != member.attempt.id:
        raise NotFound("this checkpoint")
    return checkpoint


def list_files(session: Session, checkpoint_id: str) -> Sequence[CheckpointFile]:
    """Return the files of a checkpoint, by path."""
    statement = (
        select(CheckpointFile)
        .where(CheckpointFile.checkpoint_id == checkpoint_id)
        .order_by(CheckpointFile.path)
    )
    return session.scalars(statement).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A checkpoint that is whole, and by which attempt it was made."""

    checkpoint: Checkpoint
    files: Sequence[CheckpointFile]
    attempt_number: int


def commit_checkpoint(
    database: Database,
    storage: LocalStorage,
    ticket: Ticket,
    checkpoint_id: str,
    *,
    now: datetime,
) -> Sealed:
    """Make a checkpoint whose files are all there exist; again, and nothing changes.

    Raises:
        StaleAttempt: the attempt has ended.
        NotFound: the attempt has begun no such checkpoint.
        FilesMissing: not all files are there.
    """
    with database.read() as session:
        checkpoint = get_own(session, check_live(session, ticket), checkpoint_id)
        files = list_files(session, checkpoint_id)
    if checkpoint.state is CheckpointState.UPLOADING:
        missing = find_missing(storage, checkpoint_id, files)
        if missing:
            message = f"{len(missing)} of {len(files)} files are missing: send them first"
            raise FilesMissing(message, members={"paths": [file.path for file in missing[:20]]})
        storage.sync_checkpoint(checkpoint_id)

    def seal(session: Session) -> tuple[Sealed, list[str]]:
        member = check_live(session, ticket)
        checkpoint = get_own(session, member, checkpoint_id)
        expired = _seal(session, member, checkpoint, now=now)
        number = member.attempt.number
        return Sealed(checkpoint=checkpoint, files=files, attempt_number=number), expired

    sealed, expired = write(database, seal)
    if expired:
        finish_deletions(database, storage, expired)
    return sealed


def _seal(
    session: Session, member: Membership, checkpoint: Checkpoint, *, now: datetime
) -> list[str]:
    """Say that the checkpoint is whole; return the ids of those that its coming makes expire."""
    if checkpoint.state is not CheckpointState.UPLOADING:
        return []
    checkpoint.state, checkpoint.committed_at = CheckpointState.COMMITTED, now
    data = {
        "checkpoint_id": checkpoint.id,
        "name": checkpoint.name,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "size_bytes": checkpoint.size_bytes,
        "attempt_id": member.attempt.id,
        "attempt": member.attempt.number,
    }
    record_event(session, member.job, "checkpoint.committed", now=now, data=data)
    session.flush()
    return mark_expired(session, member.job)


def _check_open(session: Session, member: Membership) -> None:
    num_open = session.scalar(
        select(func.count())
        .select_from(Checkpoint)
        .where(
            Checkpoint.attempt_id == member.attempt.id,
            Checkpoint.state == CheckpointState.UPLOADING,
        )
    )
    if (num_open or 0) >= _OPEN_MAX:
        raise Conflict(f"{_OPEN_MAX} checkpoints are being uploaded: finish those first")
