"""The flags that make a job's spec, shared by the commands that take one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trainmaster.cli.session import Session
from trainmaster.cli.spec import (
    default_entrypoint,
    parse_pairs,
    parse_value,
    read_spec,
    set_path,
)

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--recipe", help="A built-in trainer, such as image-classifier."),
    click.option(
        "--code",
        type=click.Path(exists=True, path_type=Path),
        help="A folder, a script or an archive with your code.",
    ),
    click.option("--entrypoint", help="The script in the code [train.py or main.py]."),
    click.option("--name", help="A name for people."),
    click.option(
        "--workers", type=click.IntRange(1, 4096), help="How many processes train together."
    ),
    click.option(
        "-c", "--config", multiple=True, metavar="KEY=VALUE", help="One value of the config."
    ),
    click.option("--env", multiple=True, metavar="KEY=VALUE", help="An environment variable."),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=PATH",
        help="A file or folder to read: a path here, file_… or dir:/…",
    ),
    click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label to find it by."
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Any field of the spec, as in sync.mode=local_sgd.",
    ),
)


def spec_options(command: F) -> F:
    """Add the flags to a command; `build_spec` takes what they say."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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


def upload(session: Session, spec: dict[str, Any]) -> None:
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
