"""`trainmaster events`: what happened to a job, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell, clean_for_terminal
from trainmaster.documents import Event


@click.command("events", short_help="Show what happened to a job.")
@click.argument("job")
@json_option
@click.pass_obj
def command(session: Session, job: str) -> None:
    """Show what happened to a job, oldest first; of ranks that hung, where each of them stood."""
    found = list(session.client.jobs.events.list(job, limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    for event in found:
        for line in _tell(event):
            click.echo(clean_for_terminal(line))


def _tell(event: Event) -> Iterator[str]:
    at = "" if event.created_at is None else f"{event.created_at:%Y-%m-%d %H:%M:%S}  "
    why = ": ".join(part for part in (event.reason or "", event.message or "") if part)
    yield f"{at}{clean_cell(event.type)}  {clean_cell(why)}".rstrip()
    for group in _list_groups(event.data.get("stacks")):
        ranks = ", ".join(str(rank) for rank in group.get("ranks") or ())
        yield f"    rank {ranks}"
        for line in str(group.get("stack") or "").splitlines():
            yield f"      {clean_cell(line)}"


def _list_groups(stacks: Any) -> list[dict[str, Any]]:
    return [each for each in stacks if isinstance(each, dict)] if isinstance(stacks, list) else []
