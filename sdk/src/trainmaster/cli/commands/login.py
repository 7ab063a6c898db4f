"""`trainmaster login`: remember where the service is and which key opens it."""

from __future__ import annotations

import sys

import click

from trainmaster._settings import (
    Settings,
    is_loopback,
    load_settings,
    login_path,
    parse_url,
    write_login,
)
from trainmaster.cli.session import Session, json_option


@click.command("login", short_help="Store the address and the key of a service.")
@click.argument("url", required=False)
@click.option("--key-stdin", is_flag=True, help="Read the key from standard input.")
@json_option
@click.pass_obj
def command(session: Session, url: str | None, key_stdin: bool) -> None:
    """Store the address and the key of a service, after trying them.

    They go into ~/.config/trainmaster/config.json, which only you can read. The key is never an
    argument, because everybody on a machine can see those.
    """
    chosen = parse_url(url or session.url or load_settings().url)
    if chosen.startswith("http:") and not is_loopback(chosen):
        session.say(f"{chosen} is not encrypted: everybody on the way can read the key")
    if key_stdin:
        key = sys.stdin.readline().strip()
    else:
        key = click.prompt("API key", hide_input=True, err=True).strip()
    with session.connect_with(chosen, key) as client:
        client.jobs.list(limit=1)
    path = login_path()
    write_login(path, Settings(url=chosen, api_key=key))
    if session.as_json:
        session.emit({"url": chosen, "path": str(path)})
    else:
        click.echo(f"logged in to {chosen}; stored in {path}")
