"""Finds the service of this machine, or starts it and waits until it can work."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from rich.console import Console

from api.settings import CHECKOUT, Settings
from trainmaster import AuthenticationError, Client, TrainmasterError

_READY_SECONDS = 60.0
_GOODBYE_SECONDS = 15.0


class ServerError(Exception):
    """There is no service to show anything with; the message says the way out."""


class LocalService:
    """The embedded service: one that already runs here, or one that the demo starts."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings, self._console = settings, console
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def was_started(self) -> bool:
        """Whether this demo started it."""
        return self._process is not None

    @property
    def key_path(self) -> str:
        """Where the admin key lies, as a shell finds it."""
        return str(self._settings.data_folder / "admin.key")

    @property
    def folder(self) -> str:
        """The data folder."""
        return str(self._settings.data_folder)

    def client(self) -> Client:
        """Return a client with the admin key of this machine."""
        key = (self._settings.data_folder / "admin.key").read_text().strip()
        return Client(self._settings.service_url, key, retry_seconds=20)

    def ensure(self) -> None:
        """Have a service that answers and knows a node, starting one if there is none.

        Raises:
            ServerError: it did not come up; the last lines of its log are in the message.
        """
        if self._answers():
            self._console.print(f"using the service at {self._settings.service_url}", markup=False)
            return
        self._console.print(f"starting the service on {self._settings.service_url}", markup=False)
        self._start()
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            process = self._process
            if process is not None and process.poll() is not None:
                self._process = None
                raise ServerError(f"the service ended at once:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"the service is not ready after a minute:\n{self._log_tail()}")
            time.sleep(0.05)

    def end(self) -> None:
        """End the service if this demo started it; it stops its node in order."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def describe_running(self) -> str:
        """Return how to use and how to end the service that goes on."""
        assert self._process is not None
        url = self._settings.service_url
        return (
            f"the service goes on at {url} (API documentation: {url}/docs)\n"
            f"end it with: kill {self._process.pid}"
        )

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                if not client.is_ready():
                    return False
                return any(node.state == "ready" for node in client.nodes.list())
        except FileNotFoundError:
            return False  # no first start yet
        except AuthenticationError as error:
            raise ServerError(
                f"something else answers at {self._settings.service_url}: set TRAINMASTER_BIND to "
                "another address, such as 127.0.0.1:8701"
            ) from error
        except TrainmasterError:
            return False

    def _start(self) -> None:
        folder = self._settings.data_folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api", "all"],
                cwd=CHECKOUT,
                env={**os.environ, "TRAINMASTER_LOG_FORMAT": "json"},  # noqa: TID251  the child reads the same settings
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log_tail(self) -> str:
        path = self._settings.data_folder / "service.log"
        lines = path.read_text(errors="replace").splitlines()[-12:] if path.exists() else []
        return "\n".join([*lines, f"(all of it: {path})"])
