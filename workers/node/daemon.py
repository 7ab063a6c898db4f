"""The node daemon: one per machine, lives as long as the machine, starts supervisors.

Everything it must remember is in files: it may be killed at any moment and started again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from workers.node.capacity import discover_capacity, find_address
from workers.node.config import NodeConfig
from workers.node.heartbeat import Heartbeat
from workers.node.library import build_library, find_preloader_version
from workers.node.registration import CannotRegister
from workers.node.runs import Runs
from workers.node.spawning import Spawner
from workers.node.sweeping import Sweeper
from workers.supervisor import cgroup, forkserver, linux, preloading
from workers.supervisor.http import Refused
from workers.supervisor.layout import Handover, NodeFolder

_log = logging.getLogger("trainmaster.node")
VERSION = "0.1.0"
EXIT_ALREADY_RUNNING = 75
EXIT_NOT_REGISTERED = 78
_PRELOADER = Path(__file__).with_name("preloader.py")
_LOOK_BUSY_S, _LOOK_IDLE_S = 0.1, 0.5
_LOCK_LIMIT_S = 2.0
_DEFAULT_PROJECT = "default"


def run_daemon(config: NodeConfig, stop: threading.Event | None = None) -> int:
    """Run until `stop` is set, or SIGTERM or SIGINT comes; return the exit code.

    Supervisors go on when the daemon ends; the next one adopts them. On the main thread it
    installs handlers for both signals.
    """
    stop = stop or threading.Event()
    node = NodeFolder(config.node_dir)
    node.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _hold_lock(node.daemon_lock) as is_ours:
        if not is_ours:
            _log.error("another daemon uses %s: stop it first, or use another folder", node.path)
            return EXIT_ALREADY_RUNNING
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda _number, _frame: stop.set())
        try:
            return _serve(config, node, stop)
        except (CannotRegister, Refused) as error:
            _log.error("%s", error)
            return EXIT_NOT_REGISTERED


def _serve(config: NodeConfig, node: NodeFolder, stop: threading.Event) -> int:
    library = build_library(node.path)
    template = Handover(
        url=config.url,
        token="",
        attempt_id="",
        epoch=0,
        node_id="",
        node_dir=node.path,
        job_python=config.job_python,
        preloader=_PRELOADER,
        library=library,
        preloader_version=find_preloader_version(library, _PRELOADER, config.job_python),
        cgroup_root=cgroup.find_root() if config.uses_cgroups else None,
        heartbeat_s=config.heartbeat_s,
        fence_s=config.fence_s,
        orphan_s=config.orphan_s,
    )
    _drop_old_versions(node, template)
    spawner = Spawner(library, template.zygote, node.daemon_lock, config.orphan_s)
    spawner.start_zygote()
    preloader = _Preloader(template) if config.preloads_default else None
    if preloader is not None:
        preloader.look_after()
    facts = {
        "boot_id": linux.get_boot_id(),
        "version": VERSION,
        "address": config.address or find_address(config.url),
        "capacity": discover_capacity(config.cpus),
    }
    heartbeat = Heartbeat(config, facts)
    sweeper = Sweeper(
        node, kept_max=config.kept_failed_runs, cache_limit_bytes=config.cache_limit_bytes
    )
    runs = Runs(node, spawner, sweeper, template)
    runs.recover()
    talking = threading.Thread(
        target=_talk, args=(heartbeat, runs, stop), name="heartbeat", daemon=True
    )
    node_id = heartbeat.identify(stop)
    if not node_id:
        _drop_fork_servers(node)
        return 0
    _log.info("serving: node %s, %s", node_id, facts["capacity"])
    talking.start()
    while not stop.is_set():
        count = runs.look_after()
        if count == 0 and heartbeat.is_forsaken():
            _log.info("the service has been away for %s s and nothing runs here", config.forsaken_s)
            stop.set()
        if preloader is not None:
            preloader.look_after()
        stop.wait(_LOOK_BUSY_S if count else _LOOK_IDLE_S)
    _drop_fork_servers(node)
    return 0


def _talk(heartbeat: Heartbeat, runs: Runs, stop: threading.Event) -> None:
    """Keep the conversation going whatever happens in it."""
    while not stop.is_set():
        try:
            heartbeat.run(runs, stop)
        except Exception:  # noqa: BLE001  a daemon that has stopped talking is worse
            _log.exception("heartbeat failed")
            stop.wait(1.0)


class _Preloader:
    """Keeps the default project's preloader alive, more and more patiently if it dies."""

    def __init__(self, template: Handover) -> None:
        self._template = template
        self._deaths = 0
        self._next_look_s = 0.0

    def look_after(self) -> None:
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + 1.0
        try:
            was_started = preloading.ensure(self._template, _DEFAULT_PROJECT, idle_s=float("inf"))
        except OSError:
            _log.exception("preloader not started")
            was_started = True
        if was_started:
            self._next_look_s = time.monotonic() + min(2.0**self._deaths, 60.0)
            self._deaths += 1


@contextlib.contextmanager
def _hold_lock(path: Path) -> Iterator[bool]:
    """Hold the daemon's lock; yield whether it could be had.

    Tries for a while: fork servers look at the lock now and then, and a daemon that was just
    killed may still be going away.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline_s = time.monotonic() + _LOCK_LIMIT_S
        while not (is_ours := forkserver.take_lock(handle)) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        yield is_ours
    finally:
        os.close(handle)


def _drop_old_versions(node: NodeFolder, template: Handover) -> None:
    """Remove what earlier versions left; their fork servers see it and leave."""
    for path in node.path.glob("supervisor-*"):
        if path.stem != template.library.stem:
            path.unlink()
    for path in node.preloaders.glob("*"):
        if not path.stem.endswith(template.preloader_version):
            path.unlink()


def _drop_fork_servers(node: NodeFolder) -> None:
    for path in (*node.path.glob("supervisor-*.sock"), *node.preloaders.glob("*.sock")):
        path.unlink(missing_ok=True)
