"""Runs the daemon of this machine with the settings of the service."""

from __future__ import annotations

import logging
import os
import socket
import sys

from api.roles import BESIDE_SERVICE
from api.settings import Settings
from workers.node.config import NodeConfig
from workers.node.daemon import run_daemon


def run(role: str, settings: Settings, arguments: list[str]) -> int:
    """Run the daemon until it is told to end."""
    if arguments not in ([], [BESIDE_SERVICE]):
        sys.stderr.write(f"trainmaster: {role} takes no arguments: set TRAINMASTER_ variables\n")
        return 2
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return run_daemon(
        NodeConfig(
            url=settings.service_url,
            node_dir=settings.data_folder / "node",
            name=settings.node_name or socket.gethostname(),
            pool=settings.node_pool,
            address=settings.node_address,
            admin_key=_find_admin_key(settings),
            job_python=settings.job_python.absolute(),
            cpus=settings.node_cpus,
            heartbeat_s=settings.heartbeat_seconds,
            fence_s=settings.fence_seconds,
            is_embedded=BESIDE_SERVICE in arguments,
        )
    )


def _find_admin_key(settings: Settings) -> str | None:
    """Return the key to join with: the one given, or this machine's own."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.data_folder / "admin.key"
    return path.read_text().strip() if path.exists() else None
