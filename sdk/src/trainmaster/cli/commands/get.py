"""`trainmaster get`: one job, all of it."""

from __future__ import annotations

import json

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell, clean_for_terminal, format_age, format_seconds


@click.command("get", short_help="Show one job.")
@click.argument("job")
@json_option
@click.pass_obj
def command(session: Session, job: str) -> None:
    """Show one job: its state and why, how far it is, where it runs, and its spec."""
    found = session.client.jobs.get(job)
    if session.as_json:
        session.emit(found.raw)
        return
    progress = found.progress
    lines = {
        "job": found.id,
        "name": found.name,
        "project": found.project,
        "state": " · ".join(
            part for part in (found.state, found.reason or "", found.message or "") if part
        ),
        "step": ""
        if progress is None or progress.step is None
        else f"{progress.step}" + (f"/{progress.total_steps}" if progress.total_steps else ""),
        "left": ""
        if progress is None or progress.remaining_seconds is None
        else format_seconds(progress.remaining_seconds),
        "attempt": ""
        if found.attempt is None
        else f"{found.attempt.number} ({found.attempt.id}) on {', '.join(found.attempt.nodes)}",
        "waits": ", ".join(found.waits_for),
        "starts": ""
        if found.reservation is None or found.reservation.start_at is None
        else f"at the latest {found.reservation.start_at:%Y-%m-%d %H:%M} UTC",
        "moved": f"{found.evictions} times made room for others" if found.evictions else "",
        "created": f"{format_age(found.created_at)} ago",
        "labels": ", ".join(f"{name}:{value}" for name, value in found.labels.items()),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<8} {clean_cell(value)}")
    spec = json.dumps(found.spec, indent=2, ensure_ascii=False)
    click.echo("spec     " + clean_for_terminal(spec).replace("\n", "\n         "))
