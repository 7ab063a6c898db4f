"""`trainmaster logs`: what the ranks of a job printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from trainmaster.cli.session import EXIT_INTERRUPTED, Session, json_option
from trainmaster.cli.text import clean_for_terminal
from trainmaster.documents import LogLine


@click.command("logs", short_help="Print what the ranks of a job printed.")
@click.argument("job")
@click.option("--rank", type=click.IntRange(min=0), help="Only this rank.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this stream.")
@click.option("--attempt", help="Only this attempt.")
@click.option("--tail", type=click.IntRange(1, 1_000_000), help="Only the last so many lines.")
@click.option("--grep", help="Only lines that contain this text.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    job: str,
    rank: int | None,
    stream: str | None,
    attempt: str | None,
    tail: int | None,
    grep: str | None,
    follow: bool,
) -> None:
    """Print what the ranks of a job printed; lines of several ranks begin with [rank].

    With --json: one list, or one document per line with --follow.
    """
    session = ctx.find_object(Session) or Session()
    logs = session.client.jobs.logs
    after: str | None = None
    lines: Iterable[LogLine] = ()
    if not follow or tail is not None:
        known = list(
            logs.list(job, rank=rank, stream=stream, attempt=attempt, tail=tail, grep=grep)
        )
        lines, after = known, known[-1].id if known else None
        if session.as_json and not follow:
            session.emit({"object": "list", "data": [line.raw for line in known]})
            return
    with_rank = rank is None and session.client.jobs.get(job).num_workers > 1
    printer = LogPrinter(session, with_rank=with_rank)
    try:
        for line in lines:
            printer.show(line)
        if follow:
            for line in logs.follow(
                job, rank=rank, stream=stream, attempt=attempt, grep=grep, after=after
            ):
                printer.show(line)
    except KeyboardInterrupt:
        ctx.exit(EXIT_INTERRUPTED)


class LogPrinter:
    """Writes lines to standard output: as they are into a file, made harmless on a terminal."""

    def __init__(self, session: Session, *, with_rank: bool) -> None:
        self._session = session
        self._with_rank = with_rank
        self._is_terminal = sys.stdout.isatty()

    def show(self, line: LogLine) -> None:
        """Print a line, of several ranks with whose it is."""
        if self._session.as_json:
            self._session.emit_line(line.raw)
            return
        text = clean_for_terminal(line.text) if self._is_terminal else line.text
        # Not stripped of colours on the way into a file: a log stays as it was written.
        click.echo(f"[{line.rank}] {text}" if self._with_rank else text, color=True)
