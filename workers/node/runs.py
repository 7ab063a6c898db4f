"""The attempts this node has: start them, watch their supervisors, salvage, report, clean up.

Everything is found again in the run folders after the daemon's death. Safe to use from the
heartbeat's thread and the watching one.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from workers.node.spawning import Spawner
from workers.node.sweeping import Sweeper
from workers.supervisor import forkserver, linux
from workers.supervisor.cgroup import find_cgroup
from workers.supervisor.failures import FOLDER_LOST, describe_full_disk
from workers.supervisor.files import find_json, is_disk_full
from workers.supervisor.layout import Handover, NodeFolder, RunFolder
from workers.supervisor.processes import send_signal
from workers.supervisor.ranks import kill_leftovers

_log = logging.getLogger("trainmaster.node")
_ATTEMPT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 30.0
# A salvage that fails this often in a row while the service answers will not succeed.
_TRIES_MAX = 8
_NUDGE_PAUSE_S = 1.0
# A supervisor that was told it is stale has this long to leave by itself.
_STALE_LIMIT_S = 15.0


@dataclass
class Run:
    """One attempt here. `pid` is its supervisor's, None between one and the next."""

    folder: RunFolder
    attempt_id: str
    epoch: int
    pid: int | None = None
    start_ticks: int | None = None
    ended_at_s: float = 0.0
    failures: int = 0
    retry_at_s: float = 0.0
    nudged_at_s: float = 0.0
    stale_since_s: float | None = None
    is_disowned: bool = False

    def is_supervised(self) -> bool:
        """Say whether the supervisor lives."""
        return self.pid is not None and linux.find_start_ticks(self.pid) == self.start_ticks


class Runs:
    """All attempts of this node."""

    def __init__(
        self, node: NodeFolder, spawner: Spawner, sweeper: Sweeper, template: Handover
    ) -> None:
        """`template` has everything a supervisor is told but what belongs to an attempt."""
        self._node, self._spawner, self._sweeper = node, spawner, sweeper
        self._template = template
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._answered_at_s = 0.0
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Find the runs of an earlier daemon: adopt living supervisors, salvage dead ones."""
        self._node.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot_id = linux.get_boot_id()
        with self._lock:
            for path in sorted(self._node.runs.iterdir()):
                try:
                    self._recover_one(RunFolder(path), boot_id)
                except Exception:  # noqa: BLE001  the other runs must be found
                    _log.exception("run not recovered: %s", path.name)

    def describe(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the heartbeat's `supervisors` and `ended`."""
        with self._lock:
            alive = [
                {"attempt_id": run.attempt_id, "epoch": run.epoch}
                for run in self._runs.values()
                if run.is_supervised()
            ]
            return alive, list(self._ended.values())

    def forget_ended(self, told: Sequence[dict[str, Any]]) -> None:
        """Drop what the service has been told."""
        with self._lock:
            for ended in told:
                self._ended.pop(ended["attempt_id"], None)

    def apply(
        self,
        told: Sequence[dict[str, Any]],
        assignments: Sequence[dict[str, Any]],
        stops: Sequence[dict[str, Any]],
    ) -> bool:
        """Do what a heartbeat's answer asks for; True if any of it was new.

        `told` are the supervisors that the heartbeat named.
        """
        now_s = linux.boottime_s()
        named = {one["attempt_id"] for one in (*told, *assignments)}
        with self._lock:
            self._answered_at_s = now_s
            for run in list(self._runs.values()):
                if run.is_disowned and run.attempt_id not in named:
                    _log.warning("run dropped, the service wants it no more: %s", run.attempt_id)
                    self._guard(run, partial(self._close, run))
            is_new = False
            for assignment in assignments:
                is_new |= self._take(assignment, now_s)
            for stop in stops:
                is_new |= self._tell_stop(stop, now_s)
            return is_new

    def wake(self, nudges: Sequence[dict[str, Any]]) -> None:
        """Have these supervisors ask at once what is wanted of them, such as a checkpoint."""
        with self._lock:
            for nudge in nudges:
                run = self._runs.get(str(nudge["attempt_id"]))
                if run is not None:
                    self._ring(run)

    def look_after(self) -> int:
        """Act on supervisors that have ended since the last look; return the number of runs."""
        now_s = linux.boottime_s()
        self._spawner.reap()
        with self._lock:
            for run in list(self._runs.values()):
                self._guard(run, partial(self._look_after_one, run, now_s))
            return len(self._runs)

    def _guard(self, run: Run, act: Callable[[], object]) -> None:
        """Do something with one run; whatever it has become, the others are not held up."""
        try:
            if run.folder.is_lost:
                self._lose(run, "SupervisorDied", FOLDER_LOST)
            else:
                act()
        except Exception as error:  # noqa: BLE001  a job may have done anything to its folder
            _log.exception("run cannot go on: %s", run.attempt_id)
            if isinstance(error, OSError) and is_disk_full(error):
                self._lose(run, "StorageUnavailable", describe_full_disk(self._node.path))
            else:
                self._lose(run, "SupervisorDied", f"{FOLDER_LOST} ({error})")

    def _look_after_one(self, run: Run, now_s: float) -> None:
        if run.is_supervised():
            self._end_if_stale(run, now_s)
            return
        if run.pid is not None:
            run.pid, run.ended_at_s = None, now_s
        self._settle(run, now_s)

    def _recover_one(self, folder: RunFolder, boot_id: str) -> None:
        try:
            handover = Handover.read(folder)
        except ValueError:
            _log.warning("run folder without a handover removed: %s", folder.path.name)
            kill_leftovers(self._find_cgroup(folder.path.name), folder.run_file)
            self._sweeper.remove(folder.path)
            return
        run = Run(folder, handover.attempt_id, handover.epoch)
        try:
            # The service's address and the node's paths may have changed since.
            self._hand_over(run, handover.token)
        except OSError:
            _log.exception("run found, and its handover is not renewed: %s", run.attempt_id)
        identity = find_json(folder.identity) or {}
        if identity.get("boot_id") == boot_id:
            run.pid, run.start_ticks = identity.get("pid"), identity.get("start_ticks")
        self._runs[run.attempt_id] = run
        _log.info("run found: %s, supervised: %s", run.attempt_id, run.is_supervised())

    def _take(self, assignment: dict[str, Any], now_s: float) -> bool:
        attempt_id, epoch = str(assignment["attempt_id"]), int(assignment["epoch"])
        run = self._runs.get(attempt_id)
        if run is None:
            return self._start(attempt_id, epoch, str(assignment["token"]), now_s)
        if run.is_supervised():
            return False
        if run.epoch == epoch:
            self._guard(run, partial(self._hand_over, run, str(assignment["token"])))
            run.is_disowned = False
        return False

    def _start(self, attempt_id: str, epoch: int, token: str, now_s: float) -> bool:
        if attempt_id in self._ended:
            return False  # the service has not heard of its end yet
        if not _ATTEMPT_ID.fullmatch(attempt_id):
            _log.error("assignment ignored, its id is no name: %r", attempt_id)
            return False
        run = Run(RunFolder(self._node.runs / attempt_id), attempt_id, epoch)
        self._runs[attempt_id] = run
        try:
            run.folder.path.mkdir(mode=0o700, exist_ok=True)
            self._hand_over(run, token)
        except OSError as error:
            _log.exception("run not started: %s", attempt_id)
            is_full = is_disk_full(error)
            why = describe_full_disk(self._node.path) if is_full else f"the node failed: {error}"
            self._lose(run, "StorageUnavailable" if is_full else "NodeFailure", why)
        else:
            self._guard(run, partial(self._spawn, run, is_salvage=False, now_s=now_s))
        return True

    def _hand_over(self, run: Run, token: str) -> None:
        handover = replace(self._template, attempt_id=run.attempt_id, epoch=run.epoch, token=token)
        handover.write(run.folder)

    def _spawn(self, run: Run, *, is_salvage: bool, now_s: float) -> None:
        run.failures += 1
        run.retry_at_s = now_s + min(_RETRY_FIRST_S * 2 ** (run.failures - 1), _RETRY_MAX_S)
        try:
            pid = self._spawner.spawn(run.folder.path, is_salvage=is_salvage)
        except OSError as error:
            if is_disk_full(error) and not is_salvage:
                raise
            _log.exception("supervisor not started: %s", run.attempt_id)
            return
        run.pid, run.start_ticks = pid, linux.find_start_ticks(pid)
        _log.info("supervisor started: %s, pid %s, salvage: %s", run.attempt_id, pid, is_salvage)

    def _tell_stop(self, stop: dict[str, Any], now_s: float) -> bool:
        run = self._runs.get(str(stop["attempt_id"]))
        if run is None or now_s < run.nudged_at_s + _NUDGE_PAUSE_S:
            return False
        is_new = run.nudged_at_s == 0.0
        run.nudged_at_s = now_s
        if stop.get("reason") == "Stale" and run.stale_since_s is None:
            run.stale_since_s = now_s
        self._ring(run)
        return is_new

    def _ring(self, run: Run) -> None:
        """Have the supervisor renew its lease now, and hear what is wanted."""
        identity = find_json(run.folder.identity)
        # Before it is written, the supervisor has not asked for its wishes yet.
        if identity is not None and run.pid is not None and run.is_supervised():
            send_signal(run.pid, signal.SIGUSR1)

    def _end_if_stale(self, run: Run, now_s: float) -> None:
        """Kill a supervisor that cannot learn that it is stale: it may be stopped or hanging."""
        if run.stale_since_s is None or now_s < run.stale_since_s + _STALE_LIMIT_S:
            return
        _log.warning("stale supervisor killed: %s", run.attempt_id)
        if run.pid is not None:
            send_signal(run.pid, signal.SIGKILL)
        kill_leftovers(self._find_cgroup(run.attempt_id), run.folder.run_file)

    def _settle(self, run: Run, now_s: float) -> None:
        """Decide what becomes of a run whose supervisor has ended."""
        written = find_json(run.folder.exit_record) or {}
        if written.get("reported"):
            self._close(run, is_failed=written["record"]["outcome"] == "failed")
        elif written.get("stale") or (run.stale_since_s is not None):
            _log.warning("run dropped, the service has disowned it: %s", run.attempt_id)
            self._close(run)
        elif written.get("refused") or run.failures > _TRIES_MAX:
            self._give_up(run, str(written.get("refused") or "the salvage failed too often"))
        elif written.get("unauthorized"):
            # The next answers either bring a new token or show that nobody wants the run.
            run.is_disowned = run.ended_at_s > self._answered_at_s or run.is_disowned
            if not run.is_disowned:
                self._start_again(run, now_s)
        elif written.get("gave_up"):
            run.failures = 0
            if self._answered_at_s > run.ended_at_s:
                self._start_again(run, now_s)
        elif now_s >= run.retry_at_s or run.failures <= 1:
            self._start_again(run, now_s)

    def _start_again(self, run: Run, now_s: float) -> None:
        """Start a supervisor for a run that has none: a salvage, unless nothing has run."""
        # Nothing has run if no supervisor has ever said who it is.
        was_started = run.folder.identity.exists()
        if was_started or not forkserver.is_locked(run.folder.lock):
            self._spawn(run, is_salvage=was_started, now_s=now_s)

    def _give_up(self, run: Run, why: str) -> None:
        message = f"the supervisor died and what it left could not be delivered: {why}"
        self._lose(run, "SupervisorDied", message)

    def _lose(self, run: Run, reason: str, message: str) -> None:
        """End a run here at once, whatever is left of it, and have the service told."""
        _log.error("run given up: %s: %s", run.attempt_id, message)
        self._ended[run.attempt_id] = {
            "attempt_id": run.attempt_id,
            "epoch": run.epoch,
            "reason": reason,
            "message": message,
        }
        if run.pid is not None and run.is_supervised():
            send_signal(run.pid, signal.SIGKILL)
        kill_leftovers(self._find_cgroup(run.attempt_id), run.folder.run_file)
        self._close(run, is_failed=True)

    def _close(self, run: Run, *, is_failed: bool = False) -> None:
        self._runs.pop(run.attempt_id, None)
        cgroup = self._find_cgroup(run.attempt_id)
        if cgroup is not None:
            kill_leftovers(cgroup, run.folder.run_file)
            cgroup.remove()
        if is_failed:
            self._sweeper.keep(run.folder.path)
        else:
            self._sweeper.remove(run.folder.path)

    def _find_cgroup(self, attempt_id: str) -> Any:
        return find_cgroup(self._template.cgroup_root, attempt_id)
