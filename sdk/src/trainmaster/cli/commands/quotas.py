"""`trainmaster quotas`: what projects and their users may use."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Quota


@click.command("quotas", short_help="List what projects may use, and what is in use.")
@json_option
@click.pass_obj
def command(session: Session) -> None:
    """List the quotas of your project, with what is in use; an admin's key lists all."""
    found = list(session.client.quotas.list(limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    head = ["PROJECT", "USER", "ID", "WEIGHT", "GPUS", "GUARANTEED", "LIMIT", "GPU-HOURS", "BUDGET"]
    session.print_table(head, [_row(each) for each in found])
    if not found:
        session.say("no quotas: everybody may use everything, in equal shares")


def _row(quota: Quota) -> list[str]:
    used = quota.in_use
    borrows = "" if quota.may_borrow else " (no more)"
    return [
        clean_cell(quota.project),
        clean_cell(quota.user or "-"),
        quota.id,
        str(quota.weight),
        "-" if used is None else str(used.gpus),
        f"{quota.guaranteed_gpus}{borrows}",
        "-" if quota.limit_gpus is None else str(quota.limit_gpus),
        "-" if used is None else f"{used.gpu_hours_this_month:.1f}",
        "-" if quota.gpu_hours_per_month is None else f"{quota.gpu_hours_per_month:g}",
    ]
