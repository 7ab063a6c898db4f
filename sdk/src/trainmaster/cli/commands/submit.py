"""`trainmaster submit`: a spec of a file, flags and code becomes a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainmaster._errors import ConfigurationError
from trainmaster.cli.commands.follow import follow_to_exit
from trainmaster.cli.explanations import tell
from trainmaster.cli.session import EXIT_REFUSED, Session, json_option
from trainmaster.cli.spec_flags import build_spec, spec_options, upload
from trainmaster.cli.text import clean_for_terminal


@click.command("submit", short_help="Submit a job.")
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), help="Spec as JSON; - reads stdin."
)
@spec_options
@click.option("--follow", is_flag=True, help="Follow it until it ends; exit with its result.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would become of it; submit and upload nothing."
)
@click.option(
    "--parameters",
    type=click.IntRange(min=1),
    help="With --dry-run: how many the model has, where the service cannot know it.",
)
@click.option(
    "--link-mbit",
    type=click.FloatRange(min=0, min_open=True),
    help="With --dry-run: how fast the slowest link between two workers is.",
)
@json_option
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    follow: bool,
    dry_run: bool,
    parameters: int | None,
    link_mbit: float | None,
    **flags: Any,
) -> None:
    """Submit a job and print its id.

    What follows -- goes to the script as it is. Examples:

    \b
      trainmaster submit --recipe image-classifier --workers 2 -c epochs=3 --follow
      trainmaster submit --code . --workers 4 -- --lr 0.1
      trainmaster submit -f job.json --set priority=80
    """
    session = ctx.find_object(Session) or Session()
    spec = build_spec(**flags)
    if dry_run:
        _report(ctx, session, spec, num_parameters=parameters, link_mbit=link_mbit)
        return
    upload(session, spec)
    job = session.client.jobs.submit(spec)
    if follow:
        session.say(f"submitted {job.id}")
        follow_to_exit(ctx, session, job.id)
    elif session.as_json:
        session.emit(job.raw)
    else:
        click.echo(job.id)
        session.say(f"follow it: trainmaster follow {job.id}")


def _report(ctx: click.Context, session: Session, spec: dict[str, Any], **hints: Any) -> None:
    inputs = spec.get("inputs")
    if isinstance(inputs, dict):
        spec["inputs"] = {name: _path_of(where) for name, where in inputs.items()}
    said = session.client.jobs.simulate(spec, **hints)
    if session.as_json:
        session.emit(said.raw)
    elif said.would_be_accepted:
        click.echo("the service would take this job; nothing was submitted")
        if isinstance(spec.get("code"), Path):
            click.echo("the code can be packed; it was not uploaded")
        for line in tell(said):
            click.echo(clean_for_terminal(line))
    else:
        session.say("the service would refuse this job:")
        for error in said.errors:
            session.say(f"  {clean_for_terminal(str(error))}")
    if not said.would_be_accepted:
        ctx.exit(EXIT_REFUSED)


def _path_of(where: Any) -> Any:
    """Return the path that an input names here, which must be there; other inputs as they are."""
    if not isinstance(where, str) or where.startswith(("file_", "dir:")):
        return where
    path = Path(where).expanduser()
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist")
    return path
