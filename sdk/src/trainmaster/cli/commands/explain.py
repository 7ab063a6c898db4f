"""`trainmaster explain`: why, behind whom, when, and what would help."""

from __future__ import annotations

import click

from trainmaster.cli.explanations import tell
from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_for_terminal


@click.command("explain", short_help="Say why a job is where it is, and what would help.")
@click.argument("job")
@json_option
@click.pass_obj
def command(session: Session, job: str) -> None:
    """Say why a job waits, who goes first, when it starts or ends, and what can be done.

    Each change that is offered was simulated: the job would start sooner with it, unless others
    are submitted that go first.
    """
    said = session.client.jobs.explain(job)
    if session.as_json:
        session.emit(said.raw)
        return
    for line in tell(said):
        click.echo(clean_for_terminal(line))
