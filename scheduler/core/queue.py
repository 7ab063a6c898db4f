"""The order in which waiting jobs are tried. Pure.

First in, first out inside a priority. The key never changes while a job waits, so time passing
re-sorts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core.cluster import WaitingJob


def order_key(job: WaitingJob) -> tuple[int, int, str]:
    """Return the sort key: higher priority first, then submit order, then id."""
    return (-job.priority, job.sequence, job.job_id)


def order_jobs(jobs: Iterable[WaitingJob]) -> list[WaitingJob]:
    """Return `jobs` in the order in which they are tried."""
    return sorted(jobs, key=order_key)
