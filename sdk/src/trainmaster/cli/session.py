"""What all commands share: the client they talk through, `--json`, and exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from trainmaster.cli.text import format_table

if TYPE_CHECKING:
    from trainmaster._errors import APIError
    from trainmaster.client import Client

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 1
EXIT_CANCELLED = 2
EXIT_REFUSED = 3
EXIT_UNREACHABLE = 4
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

EXIT_OF_STATE = {"succeeded": 0, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}

_PATIENCE_SECONDS = 10.0


class Connect(Protocol):
    """Makes a client of an address, a key and somebody to tell about new tries."""

    def __call__(
        self,
        url: str | None,
        api_key: str | None = None,
        *,
        on_retry: Callable[[APIError, float], None],
    ) -> Client:
        """Return the client."""


def connect(
    url: str | None,
    api_key: str | None = None,
    *,
    on_retry: Callable[[APIError, float], None],
) -> Client:
    """Return a client that gives up sooner than a program would: somebody is watching."""
    from trainmaster.client import Client  # noqa: PLC0415  the HTTP library is not there for help

    return Client(url, api_key, retry_seconds=_PATIENCE_SECONDS, on_retry=on_retry)


@dataclass(kw_only=True)
class Session:
    """One run of the program. `connect` is replaced in tests."""

    url: str | None = None
    as_json: bool = False
    connect: Connect = connect
    _client: Client | None = field(default=None, repr=False)
    _has_noted: bool = False

    @property
    def client(self) -> Client:
        """The client, made when it is first needed."""
        if self._client is None:
            self._client = self.connect(self.url, on_retry=self._note_retry)
        return self._client

    def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            self._client.close()

    def connect_with(self, url: str, api_key: str) -> Client:
        """Return another client, for an address and a key that are to be tried."""
        return self.connect(url, api_key, on_retry=self._note_retry)

    def emit(self, document: Any) -> None:
        """Print one JSON document, for `--json`."""
        click.echo(json.dumps(document, indent=2))

    def emit_line(self, document: Any) -> None:
        """Print one JSON document on one line, for `--json` with `--follow`."""
        click.echo(json.dumps(document, separators=(",", ":")))

    def print_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: cut to the terminal's width, or separated by tabs elsewhere."""
        is_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else None
        for line in format_table(head, rows, width=width):
            click.echo(line)

    def say(self, text: str) -> None:
        """Tell a person something that is no result: on standard error, never with `--json`."""
        if not self.as_json:
            click.echo(text, err=True)

    def _note_retry(self, error: APIError, delay_seconds: float) -> None:
        if not self._has_noted and sys.stderr.isatty():
            self._has_noted = True
            fact = str(error).splitlines()[0]
            self.say(f"{fact}\ntrying again; Ctrl-C stops that")


def json_option(command: F) -> F:
    """Add `--json` to a command; it is read from the session."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        session = ctx.find_object(Session)
        if session is not None and value:
            session.as_json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=remember,
        is_eager=True,
        help="Print JSON, for scripts.",
    )(command)
