"""Doing one thing to several jobs, and saying what became of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from trainmaster.cli.session import Session
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Job

F = TypeVar("F", bound=Callable[..., Any])


def wait_option(command: F) -> F:
    """Add `--wait` to a command."""
    return click.option("--wait", is_flag=True, help="Return only once it is done.")(command)


def act_on_jobs(
    session: Session,
    job_ids: Sequence[str],
    action: Callable[[str], Job],
    *,
    wait_until: Sequence[str] | None = None,
) -> None:
    """Do something to each job in turn; the first refusal ends it.

    `wait_until` names states to wait for besides the terminal ones; None waits for nothing.
    """
    jobs = [action(job_id) for job_id in job_ids]
    if wait_until is not None:
        jobs = [
            session.client.jobs.wait(job, until=wait_until, raise_on_failure=False) for job in jobs
        ]
    if session.as_json:
        documents = [job.raw for job in jobs]
        session.emit(documents[0] if len(documents) == 1 else {"object": "list", "data": documents})
        return
    for job in jobs:
        why = clean_cell(": ".join(part for part in (job.reason, job.message) if part))
        click.echo(f"{job.id} {job.state}" + (f" · {why}" if why else ""))
