"""`trainmaster fork`: a new job that starts where another one was."""

from __future__ import annotations

from typing import Any

import click

from trainmaster.cli.commands.follow import follow_to_exit
from trainmaster.cli.session import Session, json_option
from trainmaster.cli.spec import parse_pairs, parse_value, set_path


@click.command("fork", short_help="Submit a new job that starts from a checkpoint of another.")
@click.argument("source", metavar="JOB|CHECKPOINT")
@click.option("--name", help="A name for the new job.")
@click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="One value of the config.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the spec."
)
@click.option("--follow", is_flag=True, help="Follow it until it ends; exit with its result.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    name: str | None,
    config: tuple[str, ...],
    settings: tuple[str, ...],
    follow: bool,
) -> None:
    """Submit a new job that starts from the newest checkpoint of JOB, or from CHECKPOINT.

    It has the spec of the old job, with what you change here.
    """
    session = ctx.find_object(Session) or Session()
    client = session.client
    job_id, checkpoint_id = source, None
    if not source.startswith("job_"):
        checkpoint_id = source
        job_id = client.checkpoints.get(source).job_id
    changes: dict[str, Any] = {} if name is None else {"name": name}
    if config:
        changes["config"] = parse_pairs(config, option="--config", values_are_text=False)
    for path, text in parse_pairs(settings, option="--set", values_are_text=True).items():
        set_path(changes, path, parse_value(text))
    job = client.jobs.fork(job_id, checkpoint=checkpoint_id, **changes)
    if follow:
        session.say(f"submitted {job.id}")
        follow_to_exit(ctx, session, job.id)
    elif session.as_json:
        session.emit(job.raw)
    else:
        click.echo(job.id)
