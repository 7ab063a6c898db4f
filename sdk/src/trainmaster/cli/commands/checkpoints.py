"""`trainmaster checkpoints`: what a job has saved."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell, format_age, format_bytes, format_number


@click.command("checkpoints", short_help="List the checkpoints of a job.")
@click.argument("job")
@json_option
@click.pass_obj
def command(session: Session, job: str) -> None:
    """List the checkpoints of a job with their steps, metrics and sizes."""
    found = list(session.client.jobs.checkpoints(job, limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    rows = [
        [
            each.id,
            "-" if each.step is None else str(each.step),
            each.state + (" pinned" if each.pinned else ""),
            format_bytes(each.size_bytes),
            format_age(each.created_at),
            clean_cell(
                " ".join(f"{key}={format_number(value)}" for key, value in each.metrics.items())
            ),
        ]
        for each in found
    ]
    session.print_table(["ID", "STEP", "STATE", "SIZE", "AGE", "METRICS"], rows)
