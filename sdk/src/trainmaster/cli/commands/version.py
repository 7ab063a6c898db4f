"""`trainmaster version`: of this client, and of the service if it answers."""

from __future__ import annotations

import click

import trainmaster
from trainmaster._errors import APIError
from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell


@click.command("version", short_help="Show the versions of client and service.")
@json_option
@click.pass_obj
def command(session: Session) -> None:
    """Show the versions of client and service. A service that does not answer is no error."""
    client = session.client
    try:
        server, trouble = client.version(), None
    except APIError as error:
        server, trouble = None, str(error)
    if session.as_json:
        session.emit({"client": trainmaster.__version__, "url": client.url, "server": server})
        return
    click.echo(f"client {trainmaster.__version__}")
    if server is not None:
        click.echo(f"server {clean_cell(str(server.get('version', '?')))} at {client.url}")
    else:
        click.echo(f"server ? ({trouble})")
