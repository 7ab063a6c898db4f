"""Which jobs exist for a caller: those of the own project, for an admin all of them."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.auth.callers import Caller
from models import Job
from scheduler.core.errors import NotFound


def get_visible_job(session: Session, caller: Caller, job_id: str) -> Job:
    """Return a job that the caller may see.

    Raises:
        NotFound: there is none of that id, or it belongs to another project.
    """
    job = session.get(Job, job_id)
    if job is None or not caller.may_see(job.project_id):
        raise NotFound("this job")
    return job
