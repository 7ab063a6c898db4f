"""`trainmaster verify-resume`: how well a training resumes, found out by killing one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainmaster.cli.session import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Session,
    json_option,
)
from trainmaster.cli.spec_flags import build_spec, spec_options, upload
from trainmaster.cli.text import clean_cell, clean_for_terminal, format_number
from trainmaster.documents import Verification

_COLOURS = {"exact": "green", "equivalent": "cyan", "weights-only": "yellow"}
_GOOD = frozenset({"exact", "equivalent"})
_SHOWN_MAX = 8


@click.command("verify-resume", short_help="Find out how well a training resumes.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@spec_options
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Decides at which step is killed.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    help="How far metrics may differ and still be equivalent [0.05].",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, *, seed: int | None, tolerance: float | None, **flags: Any
) -> None:
    """Train, train again with a kill in between, and compare what both leave.

    FILE is a spec as JSON; flags are laid over it. The verdict is exact, equivalent, weights-only
    or unknown; the first two end with exit code 0, the others with 1. Examples:

    \b
      trainmaster verify-resume job.json
      trainmaster verify-resume --code . --workers 2 -c epochs=3
    """
    session = ctx.find_object(Session) or Session()
    spec = build_spec(**flags, args=())
    upload(session, spec)
    client = session.client
    verification = client.jobs.verify_resume(spec, seed=seed, tolerance=tolerance)
    session.say(f"verifying as {verification.id}")
    try:
        verification = client.verifications.wait(
            verification, on_change=lambda now: _tell_progress(session, now)
        )
    except KeyboardInterrupt:
        session.say(
            "\nthe jobs go on\n"
            f"  look at them:  trainmaster follow {verification.job_id}\n"
            f"  call it off:   trainmaster cancel {verification.job_id}"
        )
        ctx.exit(EXIT_INTERRUPTED)
    if session.as_json:
        session.emit(verification.raw)
    else:
        _tell_verdict(session, verification)
    ctx.exit(0 if verification.verdict in _GOOD else EXIT_FAILED)


def _tell_progress(session: Session, verification: Verification) -> None:
    if verification.is_finished:
        return
    if verification.interrupted_job_id is None:
        session.say(f"  training without a kill: {verification.reference_job_id}")
        return
    step = (verification.interruption or {}).get("kill_at_step")
    session.say(f"  training with a kill at step {step}: {verification.interrupted_job_id}")


def _tell_verdict(session: Session, verification: Verification) -> None:
    verdict = clean_cell(verification.verdict or "unknown")
    click.echo(verdict)
    colour = _COLOURS.get(verdict, "red")
    why = clean_for_terminal(f"{verification.reason}: {verification.message}")
    session.say(click.style(verdict, fg=colour) + f" · {why}")
    compared = verification.comparison
    if compared is None:
        return
    session.say(
        f"  killed at step {compared['killed_at_step']}, resumed from step "
        f"{compared['resumed_from_step']}, ended at step {compared['interrupted']['step']}"
    )
    session.say(f"  {compared['num_files_same']} of {compared['num_files']} files are the same")
    for file in compared["files"][:_SHOWN_MAX]:
        if not file["is_same"]:
            session.say(f"    {clean_cell(file['path'])} differs")
    if verdict == "exact":
        return  # the same state has the same metrics
    for metric in compared["metrics"][:_SHOWN_MAX]:
        near = "agrees" if metric["is_near"] else "differs"
        values = " and ".join(format_number(metric[each]) for each in ("interrupted", "reference"))
        session.say(f"    {clean_cell(metric['name'])} {values}: {near}")
