"""`trainmaster download`: a checkpoint comes home, verified."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trainmaster._errors import ConfigurationError
from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import format_bytes
from trainmaster.documents import Checkpoint


@click.command("download", short_help="Download a checkpoint, and verify it.")
@click.argument("source", metavar="CHECKPOINT|JOB")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--archive", is_flag=True, help="As one tar file, which is not verified.")
@click.option("--force", is_flag=True, help="Replace other files of the same names.")
@click.option("--no-verify", is_flag=True, help="Do not compare hashes.")
@click.option("--no-resume", is_flag=True, help="Do not use what an earlier try left.")
@json_option
@click.pass_obj
def command(
    session: Session,
    source: str,
    directory: Path | None,
    archive: bool,
    force: bool,
    no_verify: bool,
    no_resume: bool,
) -> None:
    """Download a checkpoint, or the newest one of a job, into DIRECTORY [./<checkpoint id>].

    A download that broke off goes on where it was when run again. Each file is compared with its
    SHA-256, and none appears before all have arrived.
    """
    checkpoint = find_checkpoint(session, source)
    if archive:
        target = directory or Path(f"{checkpoint.id}.tar")
        if target.exists() and not force:
            raise ConfigurationError(f"{target} exists: choose another name, or add --force")
        with progress_bar(session, checkpoint.size_bytes) as progress:
            session.client.checkpoints.download_archive(checkpoint, target, progress=progress)
    else:
        target = directory or Path(checkpoint.id)
        with progress_bar(session, checkpoint.size_bytes) as progress:
            session.client.checkpoints.download(
                checkpoint,
                target,
                resume=not no_resume,
                verify=not no_verify,
                overwrite=force,
                progress=progress,
            )
    verified = not archive and not no_verify
    if session.as_json:
        session.emit(
            {"checkpoint": checkpoint.raw, "path": str(target.resolve()), "verified": verified}
        )
        return
    click.echo(str(target))
    size = format_bytes(checkpoint.size_bytes)
    hashes = "all hashes are right" if verified else "hashes were not compared"
    session.say(f"step {checkpoint.step}, {size}, {len(checkpoint.files)} files; {hashes}")


def find_checkpoint(session: Session, source: str) -> Checkpoint:
    """Return the checkpoint of this id, or the newest one of the job of this id.

    Raises:
        ConfigurationError: the job has none.
    """
    if not source.startswith("job_"):
        return session.client.checkpoints.get(source)
    # Newest first, and whole: what is listed is committed.
    newest = session.client.jobs.checkpoints(source, limit=1).data
    if not newest:
        raise ConfigurationError(f"{source} has no checkpoint yet: trainmaster follow {source}")
    return session.client.checkpoints.get(newest[0])


@contextmanager
def progress_bar(session: Session, total_bytes: int) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what moves a bar on the terminal; None where there is none, or `--json` is given."""
    if session.as_json or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=max(1, total_bytes), label="downloading", file=sys.stderr) as bar:
        done = 0

        def report(done_bytes: int, _: int) -> None:
            nonlocal done
            bar.update(done_bytes - done)
            done = done_bytes

        yield report
