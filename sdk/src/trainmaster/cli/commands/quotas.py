"""`trainmaster quotas`: what projects and their users may use."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.spec import parse_pairs, parse_value
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Quota


@click.command("quotas", short_help="List or set what projects may use, and what is in use.")
@click.option("--project", metavar="NAME", help="Whose quota to set or take away.")
@click.option("--user", metavar="KEY", help="The same of one user of it: the id of a key.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="weight, guaranteed_gpus, limit_gpus, may_borrow, gpu_hours_per_month, priority_max.",
)
@click.option("--delete", is_flag=True, help="Take the quota away.")
@json_option
@click.pass_obj
def command(
    session: Session,
    project: str | None,
    user: str | None,
    settings: tuple[str, ...],
    delete: bool,
) -> None:
    """List the quotas of your project, with what is in use; an admin's key lists all.

    With an admin's key --project and --set make a quota or change it (null takes a limit away),
    and --project and --delete take it away.
    """
    if settings or delete:
        if project is None or (settings and delete):
            raise click.UsageError("say whose with --project, and either --set or --delete")
        _change(session, project, user, settings)
    found = list(session.client.quotas.list(limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    head = ["PROJECT", "USER", "ID", "WEIGHT", "GPUS", "GUARANTEED", "LIMIT", "GPU-HOURS", "BUDGET"]
    session.print_table(head, [_row(each) for each in found])
    if not found:
        session.say("no quotas: everybody may use everything, in equal shares")


def _change(session: Session, project: str, user: str | None, settings: tuple[str, ...]) -> None:
    """Make, change or, without settings, take away the quota of a project or user."""
    quotas = session.client.quotas
    whose = (project, user)
    existing = next((each for each in quotas.list() if (each.project, each.user) == whose), None)
    if not settings:
        if existing is None:
            raise click.UsageError(f"{user or project} has no quota to take away")
        quotas.delete(existing)
        return
    texts = parse_pairs(settings, option="--set", values_are_text=True)
    fields = {name: parse_value(text) for name, text in texts.items()}
    if existing is None:
        quotas.create(project, user=user, **fields)
    else:
        quotas.update(existing, **fields)


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
