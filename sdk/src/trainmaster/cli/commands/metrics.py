"""`trainmaster metrics`: all metrics at a glance, or one as numbers."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell, format_number


@click.command("metrics", short_help="Show what a job measured.")
@click.argument("job")
@click.argument("key", required=False)
@click.option("--rank", type=click.IntRange(min=0), help="Of this rank.")
@click.option("--points", type=click.IntRange(1, 10_000), help="At most so many, evenly chosen.")
@json_option
@click.pass_obj
def command(
    session: Session, job: str, key: str | None, rank: int | None, points: int | None
) -> None:
    """Show the metrics of a job: all at a glance, or the points of KEY."""
    metrics = session.client.jobs.metrics
    if key is not None:
        series = metrics.series(job, key, points=points, rank=rank)
        if session.as_json:
            session.emit(series.raw)
            return
        pairs = zip(series.steps, series.values, strict=True)
        session.print_table(["STEP", "VALUE"], [[str(step), repr(value)] for step, value in pairs])
        return
    found = [each for each in metrics.summary(job) if rank is None or each.rank == rank]
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    rows = [
        [
            clean_cell(each.key),
            str(each.rank),
            str(each.count),
            "-" if each.last is None else str(each.last.step),
            "-" if each.last is None else format_number(each.last.value),
            "-" if each.min is None else format_number(each.min),
            "-" if each.max is None else format_number(each.max),
        ]
        for each in found
    ]
    session.print_table(["KEY", "RANK", "POINTS", "STEP", "LAST", "MIN", "MAX"], rows)
