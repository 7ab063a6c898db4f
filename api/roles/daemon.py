"""Keeps a node daemon running beside an embedded service."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import structlog

from api.roles import BESIDE_SERVICE
from api.settings import CHECKOUT, Settings

log = structlog.get_logger()

_RESTART_SECONDS = 1.0
_GOODBYE_SECONDS = 5.0


class NodeProcess:
    """The daemon as a child; started again whenever it ends.

    A daemon that a killed service left behind holds the node's lock and goes on: the new child
    then waits its turn.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        self._environment = {
            **os.environ,  # noqa: TID251  the child reads the same settings, from the same names
            "TRAINMASTER_URL": url,
            "TRAINMASTER_DATA_DIR": str(settings.data_folder),
        }
        self._ended = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="node", daemon=True)

    def start(self) -> None:
        """Start the daemon and keep it."""
        self._thread.start()

    def stop(self) -> None:
        """End the daemon; what it supervises goes on until its lease is over."""
        self._ended.set()
        child = self._child
        if child is not None:
            child.terminate()
        self._thread.join(2 * _GOODBYE_SECONDS)

    def _keep(self) -> None:
        while not self._ended.is_set():
            self._child = subprocess.Popen(
                [sys.executable, "-m", "api", "node", BESIDE_SERVICE],
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the service, which then ends the daemon in order.
                start_new_session=True,
            )
            if self._ended.is_set():
                self._child.terminate()
            status = self._child.wait()
            if not self._ended.is_set():
                log.warning("node daemon ended; starting it again", status=status)
                self._ended.wait(_RESTART_SECONDS)
