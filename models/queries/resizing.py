"""Giving a job another number of workers: the columns that say so, together."""

from __future__ import annotations

from models.job import Job
from scheduler.core.resizing import resize_document
from scheduler.core.spec import content_hash


def take_size(job: Job, num_workers: int, *, resume_sha256: str | None) -> None:
    """Let a job have `num_workers` from its next attempt on; the caller writes the event.

    No attempt of the job may be live: what runs has the size that it was started with.

    Args:
        resume_sha256: of what decides how the job resumes at that size.
    """
    job.spec = resize_document(job.spec, num_workers)
    job.spec_sha256 = content_hash(job.spec)
    job.num_workers, job.resume_sha256 = num_workers, resume_sha256
    job.resize_to = job.resize_resume_sha256 = None
    job.claim = job.reservation = None  # they were for a gang of another size
