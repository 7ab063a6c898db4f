"""Removing an uploaded file, unless a job still needs it. Knows no HTTP."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.attempts.assignment import list_file_ids
from models import File, Job
from scheduler.core.errors import Conflict
from scheduler.core.spec import read_spec
from scheduler.core.states import TERMINAL_STATES


class FileInUse(Conflict):
    """A job that has not ended needs the file."""

    code = "file_in_use"


def delete_file(session: Session, file: File) -> None:
    """Remove the row of a file; its bytes may go after the transaction.

    Raises:
        FileInUse: a job that has not ended names it.
    """
    waiting = session.execute(
        select(Job.id, Job.spec).where(
            Job.project_id == file.project_id, Job.state.not_in(TERMINAL_STATES)
        )
    )
    for job_id, spec in waiting:
        if file.id in list_file_ids(read_spec(spec)):
            raise FileInUse(f"{job_id} needs this file and has not ended: cancel it, or wait")
    session.delete(file)
