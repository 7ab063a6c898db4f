"""`trainmaster usage`: who has used how much."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Usage


@click.command("usage", short_help="Show who has used how many GPU-hours.")
@click.option("--month", metavar="YYYY-MM", help="Of UTC; the present one unless given.")
@click.option("--project", metavar="NAME", help="Only of this project.")
@json_option
@click.pass_obj
def command(session: Session, month: str | None, project: str | None) -> None:
    """Show what each user of your project has used in a month; an admin's key shows all.

    RECENT are all GPU-hours, halved with every week that has passed since. Whose part of them is
    above its fair share waits longer than who is below.
    """
    found = list(session.client.usage.list(month=month, project=project, limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    head = [
        "PROJECT",
        "USER",
        "MONTH",
        "GPU-HOURS",
        "CPU-HOURS",
        "ATTEMPTS",
        "GPUS NOW",
        "RECENT",
        "PART",
        "FAIR",
    ]
    session.print_table(head, [_row(each) for each in found])
    if not found:
        session.say("nothing was used in that month, and nobody waits")


def _row(usage: Usage) -> list[str]:
    return [
        clean_cell(usage.project),
        clean_cell(usage.user_name or usage.user or "-"),
        clean_cell(usage.month),
        f"{usage.gpu_hours:.1f}",
        f"{usage.cpu_hours:.1f}",
        str(usage.num_attempts),
        str(usage.gpus_in_use),
        f"{usage.recent_gpu_hours:.1f}",
        f"{usage.recent_share:.0%}",
        "-" if usage.fair_share is None else f"{usage.fair_share:.0%}",
    ]
