"""`trainmaster cancel`."""

from __future__ import annotations

import click

from trainmaster.cli.act import act_on_jobs, wait_option
from trainmaster.cli.session import Session, json_option


@click.command("cancel", short_help="Stop jobs for good.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@wait_option
@json_option
@click.pass_obj
def command(session: Session, jobs: tuple[str, ...], wait: bool) -> None:
    """Stop jobs for good. A running job may save first, within its grace period."""
    act_on_jobs(session, jobs, session.client.jobs.cancel, wait_until=() if wait else None)
