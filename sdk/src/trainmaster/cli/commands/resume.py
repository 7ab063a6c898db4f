"""`trainmaster resume`."""

from __future__ import annotations

import click

from trainmaster.cli.act import act_on_jobs
from trainmaster.cli.session import Session, json_option


@click.command("resume", short_help="Let paused jobs go on from their checkpoints.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@json_option
@click.pass_obj
def command(session: Session, jobs: tuple[str, ...]) -> None:
    """Let paused jobs go on from their newest checkpoints."""
    act_on_jobs(session, jobs, session.client.jobs.resume)
