"""`trainmaster resize`."""

from __future__ import annotations

import click

from trainmaster.cli.act import act_on_jobs, wait_option
from trainmaster.cli.session import Session, json_option
from trainmaster.documents import Job


@click.command("resize", short_help="Give a job another number of workers.")
@click.argument("job")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    required=True,
    help="How many; within the bounds of its spec's elastic.",
)
@wait_option
@json_option
@click.pass_obj
def command(session: Session, job: str, workers: int, wait: bool) -> None:
    """Give a job another number of workers.

    One that waits or is paused has them at once. One that runs saves, stops, and goes on from that
    checkpoint when there is room for its new size; with --wait this returns once it runs again.
    """

    def resize(job_id: str) -> Job:
        return session.client.jobs.resize(job_id, workers)

    act_on_jobs(session, (job,), resize, wait_until=("running", "paused") if wait else None)
