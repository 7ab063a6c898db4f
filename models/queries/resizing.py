"""Giving a job another number of workers: the columns that say so, together."""

from __future__ import annotations

from models.job import Job
from scheduler.core.resizing import resize_document
from scheduler.core.spec import content_hash


def take_size(job: Job, num_workers: int) -> None:
    """Let a job have `num_workers` from its next attempt on; the caller writes the event.

    No attempt of the job may be live: what runs has the size that it was started with.
    """
    job.spec = resize_document(job.spec, num_workers)
    job.spec_sha256 = content_hash(job.spec)
    job.num_workers, job.resize_to = num_workers, None
    job.resume_sha256 = None  # over so many workers nobody has looked
    job.claim = job.reservation = None  # they were for a gang of another size
