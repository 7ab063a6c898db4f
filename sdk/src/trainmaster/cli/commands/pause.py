"""`trainmaster pause`."""

from __future__ import annotations

import click

from trainmaster.cli.act import act_on_jobs, wait_option
from trainmaster.cli.session import Session, json_option


@click.command("pause", short_help="Save jobs and give their resources back.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@wait_option
@json_option
@click.pass_obj
def command(session: Session, jobs: tuple[str, ...], wait: bool) -> None:
    """Save jobs and give their resources back, until they are resumed."""
    act_on_jobs(session, jobs, session.client.jobs.pause, wait_until=("paused",) if wait else None)
