"""`trainmaster ls`: jobs, newest first."""

from __future__ import annotations

import itertools

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell, format_age
from trainmaster.documents import Job


@click.command("ls", short_help="List jobs, newest first.")
@click.option("--state", "states", multiple=True, help="Only this state; may be given again.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only this label.")
@click.option("--project", help="Only this project.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@json_option
@click.pass_obj
def command(
    session: Session,
    states: tuple[str, ...],
    labels: tuple[str, ...],
    project: str | None,
    limit: int,
    everything: bool,
) -> None:
    """List jobs, newest first, with why they wait or how they ended."""
    page = session.client.jobs.list(
        state=list(states) or None,
        label=[label.replace("=", ":", 1) for label in labels] or None,
        project=project,
        limit=100 if everything else min(limit, 100),
    )
    jobs = list(page if everything else itertools.islice(page, limit + 1))
    has_more = not everything and len(jobs) > limit
    jobs = jobs if everything else jobs[:limit]
    if session.as_json:
        session.emit({"object": "list", "data": [job.raw for job in jobs], "has_more": has_more})
        return
    rows = [
        [
            job.id,
            clean_cell(job.name),
            job.state,
            _progress(job),
            format_age(job.created_at),
            _why(job),
        ]
        for job in jobs
    ]
    session.print_table(["ID", "NAME", "STATE", "STEP", "AGE", "WHY"], rows)
    if has_more:
        session.say("there are more: --limit or --all shows them")
    elif not jobs:
        session.say("no jobs; submit one: trainmaster submit --recipe image-classifier")


def _progress(job: Job) -> str:
    if job.progress is None or job.progress.step is None:
        return "-"
    total = job.progress.total_steps
    return f"{job.progress.step}/{total}" if total else str(job.progress.step)


def _why(job: Job) -> str:
    return clean_cell(": ".join(part for part in (job.reason, job.message) if part)) or "-"
