"""`trainmaster edit`: fields of a job that may change after it was submitted."""

from __future__ import annotations

from typing import Any

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.spec import parse_pairs, parse_value, set_path


@click.command("edit", short_help="Change a job that is submitted.")
@click.argument("job")
@click.option(
    "--set",
    "settings",
    multiple=True,
    required=True,
    metavar="FIELD=VALUE",
    help="name, priority, queue, limits.wall_seconds, limits.gpu_hours, labels.KEY.",
)
@json_option
@click.pass_obj
def command(session: Session, job: str, settings: tuple[str, ...]) -> None:
    """Change name, priority, queue, limits or labels of a job.

    A queue brings its pool; only a job that waits or is paused changes it.
    """
    changes: dict[str, Any] = {}
    for path, text in parse_pairs(settings, option="--set", values_are_text=True).items():
        set_path(changes, path, parse_value(text))
    changed = session.client.jobs.update(job, **changes)
    if session.as_json:
        session.emit(changed.raw)
    else:
        click.echo(changed.id)
