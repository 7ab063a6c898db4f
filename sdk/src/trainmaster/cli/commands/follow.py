"""`trainmaster follow`: the live view, and the job's result as exit code."""

from __future__ import annotations

import click

from trainmaster._errors import APIError
from trainmaster.cli.session import (
    EXIT_INTERRUPTED,
    EXIT_OF_STATE,
    EXIT_REFUSED,
    Session,
    json_option,
)


@click.command("follow", short_help="Follow a job live until it ends.")
@click.argument("job")
@click.option("--rank", type=click.IntRange(min=0), help="Only this rank's log.")
@json_option
@click.pass_context
def command(ctx: click.Context, job: str, rank: int | None) -> None:
    """Follow a job live until it ends: state, progress, metrics and log.

    Exits with its result: 0 succeeded, 1 failed, 2 cancelled. Ctrl-C ends the view, not the job.
    With --json: one document per line, the last one of type "end".
    """
    follow_to_exit(ctx, ctx.find_object(Session) or Session(), job, rank=rank)


def follow_to_exit(
    ctx: click.Context, session: Session, job_id: str, *, rank: int | None = None
) -> None:
    """Follow a job, say how it ended, and end the program with its result."""
    from rich.console import Console  # noqa: PLC0415  not for help

    from trainmaster.cli.follow import follow_job  # noqa: PLC0415  needs rich and httpx
    from trainmaster.cli.views import JSONView  # noqa: PLC0415  needs rich

    view = JSONView(session.emit_line) if session.as_json else None
    try:
        result = follow_job(session.client, job_id, Console(), view=view, rank=rank)
    except KeyboardInterrupt:
        session.say(
            "\nthe job goes on\n"
            f"  cancel it:   trainmaster cancel {job_id}\n"
            f"  look again:  trainmaster follow {job_id}"
        )
        ctx.exit(EXIT_INTERRUPTED)
    if result.job.state == "succeeded":
        _say_checkpoint(session, result.job.id)
    ctx.exit(EXIT_OF_STATE.get(result.job.state, EXIT_REFUSED))


def _say_checkpoint(session: Session, job_id: str) -> None:
    if session.as_json:
        return
    try:
        has_checkpoint = bool(session.client.jobs.checkpoints(job_id, limit=1).data)
    except APIError:  # a hint is not worth an error
        return
    if has_checkpoint:
        session.say(f"get its newest checkpoint: trainmaster download {job_id}")
