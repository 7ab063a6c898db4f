"""`trainmaster queues`: the lines in front of the pools."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Queue


@click.command("queues", short_help="List the queues; close or open one.")
@click.option("--close", "closed", metavar="QUEUE", help="Start no more of its jobs.")
@click.option("--open", "opened", metavar="QUEUE", help="Start its jobs again.")
@json_option
@click.pass_obj
def command(session: Session, closed: str | None, opened: str | None) -> None:
    """List the queues, their pools, and how many of your jobs are in them.

    With an admin's key --close and --open say whether a queue starts its jobs.
    """
    queues = session.client.queues
    if closed is not None:
        queues.close(closed)
    if opened is not None:
        queues.open(opened)
    found = list(queues.list(limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    session.print_table(
        ["QUEUE", "POOL", "STATE", "ACTIVE", "WAITING", "PENDING"], [_row(each) for each in found]
    )


def _row(queue: Queue) -> list[str]:
    return [
        clean_cell(queue.name),
        clean_cell(queue.pool),
        "open" if queue.open else "closed",
        str(queue.num_active),
        str(queue.num_waiting),
        str(queue.num_pending),
    ]
