"""The command line: `trainmaster <command>`. Knows which commands there are, and loads one.

Each command lives in its own module, imported only when it is the one that runs, so that help
and completion come at once.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from trainmaster._errors import APIConnectionError, APIStatusError, TrainmasterError
from trainmaster.cli.session import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Session,
    json_option,
)
from trainmaster.cli.text import clean_for_terminal

# name: (module, what it does). The module's `command` is the command; a test holds both equal.
COMMANDS = {
    "submit": ("submit", "Submit a job."),
    "ls": ("ls", "List jobs, newest first."),
    "get": ("get", "Show one job."),
    "explain": ("explain", "Say why a job is where it is, and what would help."),
    "events": ("events", "Show what happened to a job."),
    "edit": ("edit", "Change a job that is submitted."),
    "follow": ("follow", "Follow a job live until it ends."),
    "logs": ("logs", "Print what the ranks of a job printed."),
    "metrics": ("metrics", "Show what a job measured."),
    "checkpoints": ("checkpoints", "List the checkpoints of a job."),
    "download": ("download", "Download a checkpoint, and verify it."),
    "export": ("export", "Export a checkpoint to one safetensors file."),
    "cancel": ("cancel", "Stop jobs for good."),
    "pause": ("pause", "Save jobs and give their resources back."),
    "resume": ("resume", "Let paused jobs go on from their checkpoints."),
    "resize": ("resize", "Give a job another number of workers."),
    "fork": ("fork", "Submit a new job that starts from a checkpoint of another."),
    "verify-resume": ("verify_resume", "Find out how well a training resumes."),
    "nodes": ("nodes", "List the machines and what they have."),
    "queues": ("queues", "List the queues; close or open one."),
    "quotas": ("quotas", "List or set what projects may use, and what is in use."),
    "usage": ("usage", "Show who has used how many GPU-hours."),
    "login": ("login", "Store the address and the key of a service."),
    "version": ("version", "Show the versions of client and service."),
}


class Program(click.Group):
    """The group of all commands: loads them late, and ends with the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trainmaster.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with a code that scripts can read: see docs/cli.md."""
        session: Session = extra.setdefault("obj", Session())
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            error.show()
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(EXIT_REFUSED)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except TrainmasterError as error:
            _end_with(error, as_json=session.as_json)
        except OSError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_REFUSED)
        finally:
            session.close()
        sys.exit(result if isinstance(result, int) else 0)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", metavar="URL", help="Address of the service [TRAINMASTER_URL].")
@json_option
@click.pass_obj
def program(session: Session, url: str | None) -> None:
    """Train on your own machines.

    A job is submitted, queued, trained and saved by the service at --url, TRAINMASTER_URL, the
    address of `trainmaster login`, or http://127.0.0.1:8700.
    """
    session.url = url


def main() -> NoReturn:
    """Run the program: the console script `trainmaster`."""
    program.main(prog_name="trainmaster")
    raise AssertionError("the program exits by itself")


def _end_with(error: TrainmasterError, *, as_json: bool) -> NoReturn:
    unreachable = isinstance(error, APIConnectionError)
    if as_json:
        document: dict[str, Any] = {"message": str(error), "kind": type(error).__name__}
        if isinstance(error, APIStatusError):
            document |= {
                "status": error.status,
                "code": error.code,
                "request_id": error.request_id,
                "errors": [vars(each) for each in error.errors],
            }
        click.echo(json.dumps({"error": document}), err=True)
    else:
        click.echo(click.style("error: ", fg="red") + clean_for_terminal(str(error)), err=True)
    sys.exit(EXIT_UNREACHABLE if unreachable else EXIT_REFUSED)
