"""Runs the service: web server, scheduler and housekeeping, with a node daemon beside it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.housekeeping import run_once as keep_house
from api.jobs.desk import open_desk
from api.protocol import BoundedHttp
from api.roles.daemon import NodeProcess
from api.roles.prepare import CannotStart, Prepared, open_socket, prepare
from api.settings import Settings
from api.storage import LocalStorage
from api.telemetry import configure_logging
from api.verification.loop import Verifier
from scheduler.shell.loop import Scheduler, SchedulerConfig
from scheduler.shell.oracle import Oracle
from scheduler.shell.snapshot import Sight

log = structlog.get_logger()

_HOUSEKEEPING_SECONDS = 30.0
_GOODBYE_SECONDS = 2


def run(role: str, settings: Settings, arguments: list[str]) -> int:
    """Run `role` until it is told to end."""
    if arguments:
        sys.stderr.write(f"trainmaster: {role} takes no arguments: set TRAINMASTER_ variables\n")
        return 2
    configure_logging(settings.log_format)
    try:
        listening = open_socket(settings) if role in {"all", "api"} else None
        prepared = prepare(settings)
    except CannotStart as error:
        sys.stderr.write(f"trainmaster: {error}\n")
        return 1
    loops = _start_loops(role, prepared)
    try:
        if listening is not None:
            _serve(role, prepared, listening)
        else:
            _wait_for_signal()
    finally:
        for stop in loops:
            stop()
        prepared.database.close()
    return 0


class _Server(uvicorn.Server):
    """Ends the streams first: a connection that waits would otherwise hold up the goodbye."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: FastAPI = self.config.app  # type: ignore[assignment]  # it was given as an object
        app.state.streams.close()
        await super().shutdown(sockets)


def _serve(role: str, prepared: Prepared, listening: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    sight = _sight(prepared)
    app = create_app(prepared.config, prepared.database, Oracle(prepared.database, sight))
    node = NodeProcess(prepared.settings, url) if role == "all" else None
    server = _Server(
        uvicorn.Config(
            app,
            http=BoundedHttp,
            loop="uvloop",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
        )
    )
    log.info("service ready", url=url, data_dir=str(prepared.settings.data_folder))
    # The server raises the signal that ended it once more, under the handlers from before it ran:
    # with the default ones this process would be gone before it has said goodbye.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if node is not None:
        node.start()
    try:
        server.run(sockets=[listening])
    finally:
        if node is not None:
            node.stop()


def _start_loops(role: str, prepared: Prepared) -> list[Callable[[], None]]:
    stops: list[Callable[[], None]] = []
    if role in {"all", "scheduler"}:
        scheduler = Scheduler(
            prepared.database, _scheduler_config(prepared), lambda: datetime.now(UTC)
        )
        thread = threading.Thread(target=scheduler.run, name="scheduler", daemon=True)
        thread.start()
        stops.append(_stopper(scheduler.stop, thread))
    if role in {"all", "housekeeping"}:
        ended = threading.Event()
        thread = threading.Thread(
            target=_keep_house, args=(prepared, ended), name="housekeeping", daemon=True
        )
        thread.start()
        stops.append(_stopper(ended.set, thread))
        verifier = _make_verifier(prepared)
        thread = threading.Thread(target=verifier.run, name="verifications", daemon=True)
        thread.start()
        stops.append(_stopper(verifier.stop, thread))
    return stops


def _make_verifier(prepared: Prepared) -> Verifier:
    return Verifier(
        open_desk(prepared.config, prepared.database),
        LocalStorage(prepared.config.storage_dir),
        lambda: datetime.now(UTC),
        poll_s=prepared.settings.poll_seconds,
    )


def _stopper(stop: Callable[[], None], thread: threading.Thread) -> Callable[[], None]:
    def stop_and_join() -> None:
        stop()
        thread.join(5)

    return stop_and_join


def _scheduler_config(prepared: Prepared) -> SchedulerConfig:
    settings = prepared.settings
    return SchedulerConfig(
        holder=f"{socket.gethostname()}:{os.getpid()}",
        poll=timedelta(seconds=settings.poll_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
        leader_lease=timedelta(seconds=settings.leader_seconds),
        silence_max=prepared.config.timers.silence_max,
    )


def _sight(prepared: Prepared) -> Sight:
    return Sight(
        silence_max=prepared.config.timers.silence_max,
        lease=timedelta(seconds=prepared.settings.lease_seconds),
    )


def _keep_house(prepared: Prepared, ended: threading.Event) -> None:
    storage = LocalStorage(prepared.config.storage_dir)
    while True:
        try:
            keep_house(prepared.database, storage, now=datetime.now(UTC))
        except Exception:
            log.exception("housekeeping failed; trying again")
        if ended.wait(_HOUSEKEEPING_SECONDS):
            return


def _wait_for_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
