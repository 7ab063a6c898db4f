"""`trainmaster export`: the weights of a checkpoint come home as one file."""

from __future__ import annotations

from pathlib import Path

import click

from trainmaster._errors import ConfigurationError
from trainmaster.cli.commands.download import find_checkpoint, progress_bar
from trainmaster.cli.session import (
    EXIT_INTERRUPTED,
    EXIT_OF_STATE,
    EXIT_REFUSED,
    Session,
    json_option,
)
from trainmaster.cli.text import clean_cell, format_bytes
from trainmaster.documents import Job

_DTYPES = ("keep", "fp32", "bf16", "fp16")


@click.command("export", short_help="Export a checkpoint to one safetensors file.")
@click.argument("source", metavar="CHECKPOINT|JOB")
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="The file to write."
)
@click.option(
    "--dtype",
    type=click.Choice(_DTYPES),
    default="keep",
    show_default=True,
    help="What floating-point weights become.",
)
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@json_option
@click.pass_context
def command(ctx: click.Context, source: str, target: Path | None, dtype: str, force: bool) -> None:
    """Export the weights of a checkpoint, or of the newest one of a job, to one file.

    A job on the service writes it. Then it is downloaded, to ./<checkpoint id>.safetensors unless
    --output says where, and compared with its SHA-256. Several models keep apart by their names.
    """
    session = ctx.find_object(Session) or Session()
    checkpoint = find_checkpoint(session, source)
    target = target or Path(f"{checkpoint.id}.safetensors")
    if target.exists() and not force:
        raise ConfigurationError(f"{target} exists: choose another name, or add --force")
    job = session.client.checkpoints.export(checkpoint, dtype=dtype)
    session.say(f"exporting step {checkpoint.step} as {job.id}")
    try:
        job = _follow(session, job)
    except KeyboardInterrupt:
        session.say(f"\nthe export goes on; later: trainmaster download {job.id}")
        ctx.exit(EXIT_INTERRUPTED)
    if job.state != "succeeded":
        if session.as_json:
            session.emit({"job": job.raw, "checkpoint": None, "path": None, "sha256": None})
        why = clean_cell(": ".join(part for part in (job.reason, job.message) if part))
        session.say(f"the export has {job.state}: {why}")
        ctx.exit(EXIT_OF_STATE.get(job.state, EXIT_REFUSED))
    exported = find_checkpoint(session, job.id)
    (file,) = exported.files
    with progress_bar(session, file.size_bytes) as progress:
        session.client.checkpoints.download_file(
            exported, file.path, target, overwrite=force, progress=progress
        )
    if session.as_json:
        session.emit(
            {
                "job": job.raw,
                "checkpoint": exported.raw,
                "path": str(target.resolve()),
                "sha256": file.sha256,
            }
        )
        return
    click.echo(str(target))
    session.say(f"step {exported.step}, {format_bytes(file.size_bytes)}; the hash is right")


def _follow(session: Session, job: Job) -> Job:
    """Show the job until it has ended, and return how it did."""
    if session.as_json:
        return session.client.jobs.wait(job, raise_on_failure=False)
    from rich.console import Console  # noqa: PLC0415  not for help

    from trainmaster.cli.follow import follow_job  # noqa: PLC0415  needs rich and httpx

    return follow_job(session.client, job.id, Console(stderr=True)).job
