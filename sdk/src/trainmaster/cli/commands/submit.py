"""`trainmaster submit`: a spec of a file, flags and code becomes a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainmaster._errors import ConfigurationError
from trainmaster.cli.commands.follow import follow_to_exit
from trainmaster.cli.explanations import tell
from trainmaster.cli.session import EXIT_REFUSED, Session, json_option
from trainmaster.cli.spec import (
    default_entrypoint,
    parse_pairs,
    parse_value,
    read_spec,
    set_path,
)
from trainmaster.cli.text import clean_for_terminal


@click.command("submit", short_help="Submit a job.")
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), help="Spec as JSON; - reads stdin."
)
@click.option("--recipe", help="A built-in trainer, such as image-classifier.")
@click.option(
    "--code",
    type=click.Path(exists=True, path_type=Path),
    help="A folder, a script or an archive with your code.",
)
@click.option("--entrypoint", help="The script in the code [train.py or main.py].")
@click.option("--name", help="A name for people.")
@click.option("--workers", type=click.IntRange(1, 4096), help="How many processes train together.")
@click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="One value of the config.")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="An environment variable.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=PATH",
    help="A file or folder to read: a path here, file_… or dir:/…",
)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label to find it by."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any field of the spec, as in sync.mode=local_sgd.",
)
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
    _upload(session, spec)
    job = session.client.jobs.submit(spec)
    if follow:
        session.say(f"submitted {job.id}")
        follow_to_exit(ctx, session, job.id)
    elif session.as_json:
        session.emit(job.raw)
    else:
        click.echo(job.id)
        session.say(f"follow it: trainmaster follow {job.id}")


def build_spec(
    *,
    file: Path | None,
    recipe: str | None,
    code: Path | None,
    entrypoint: str | None,
    name: str | None,
    workers: int | None,
    config: tuple[str, ...],
    env: tuple[str, ...],
    inputs: tuple[str, ...],
    labels: tuple[str, ...],
    settings: tuple[str, ...],
    args: tuple[str, ...],
) -> dict[str, Any]:
    """Return the spec that the flags mean; they are laid over the file.

    Raises:
        ConfigurationError: the file or a flag cannot be understood.
    """
    spec = read_spec(file) if file is not None else {}
    if code is not None and entrypoint is None and "entrypoint" not in spec:
        entrypoint = default_entrypoint(code)
    plain = {
        "recipe": recipe,
        "code": code,
        "entrypoint": entrypoint,
        "name": name,
        "workers": workers,
        "args": list(args) or None,
    }
    spec |= {field: value for field, value in plain.items() if value is not None}
    for field, option, pairs, values_are_text in (
        ("config", "--config", config, False),
        ("env", "--env", env, True),
        ("inputs", "--input", inputs, True),
        ("labels", "--label", labels, True),
    ):
        if pairs:
            values = parse_pairs(pairs, option=option, values_are_text=values_are_text)
            spec[field] = {**(spec.get(field) or {}), **values}
    for path, text in parse_pairs(settings, option="--set", values_are_text=True).items():
        set_path(spec, path, parse_value(text))
    return spec


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


def _upload(session: Session, spec: dict[str, Any]) -> None:
    """Replace local paths in a spec by the ids of uploaded files."""
    files = session.client.files
    if isinstance(spec.get("code"), Path):
        session.say(f"uploading {spec['code']}")
        spec["code"] = files.upload(spec["code"], purpose="code").id
    inputs = spec.get("inputs")
    if not isinstance(inputs, dict):
        return
    for name, where in inputs.items():
        if isinstance(where, str) and not where.startswith(("file_", "dir:")):
            session.say(f"uploading {where}")
            inputs[name] = files.upload(where, purpose="input").id
