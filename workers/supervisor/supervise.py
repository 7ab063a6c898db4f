"""One attempt on one node, from its assignment to its exit: the supervisor's main thread."""

from __future__ import annotations

import os
import selectors
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from workers.supervisor import delivery, forkserver, linux, salvage
from workers.supervisor.assignment import Assignment, parse_assignment
from workers.supervisor.bell import Bell
from workers.supervisor.cgroup import Cgroup, make_cgroup
from workers.supervisor.channel import RankSocket
from workers.supervisor.exits import (
    RankEnd,
    Verdict,
    describe_ranks,
    is_harmless,
    judge,
    read_last_line,
)
from workers.supervisor.failures import FOLDER_LOST, CannotStart, describe_full_disk
from workers.supervisor.files import is_disk_full, open_regular, write_json
from workers.supervisor.health import Health
from workers.supervisor.http import Refused
from workers.supervisor.layout import Handover, NodeFolder, RunFolder
from workers.supervisor.lease import Lease
from workers.supervisor.link import GivenUp, Link, Stale
from workers.supervisor.memory import MemoryFacts, MemoryWatch
from workers.supervisor.murmur import Murmur
from workers.supervisor.ranks import Ranks
from workers.supervisor.replacing import Replacer
from workers.supervisor.staging import Stager
from workers.supervisor.starting import Starter
from workers.supervisor.watch import Watch

# A silent service is waited for this long after the last renewal; then a salvage goes on later.
_DELIVERY_LIMIT_S = 600.0
_FLUSH_LIMIT_S = 2.0


def run_supervisor(path: Path, *, is_salvage: bool) -> int:
    """Supervise the run in this folder, or salvage it; return the exit code.

    Does nothing when another supervisor has the run, or has had it (unless this is a salvage).
    """
    os.umask(0o077)
    linux.set_process_name("tm-supervisor")
    sys.stderr = Murmur()
    run = RunFolder(path)
    lock = open_regular(run.lock, os.O_CREAT | os.O_RDWR)
    if not forkserver.take_lock(lock) or (run.identity.exists() and not is_salvage):
        return 0
    try:
        handover = Handover.read(run)
    except ValueError:
        traceback.print_exc()
        return 1
    bell = Bell()  # before the daemon can know whom to send signals
    is_full = not _say_who_we_are(run)
    if is_salvage or is_full:
        return salvage.run_salvage(run, handover, bell, is_disk_full=is_full)
    return Supervisor(run, handover, bell).run()


def _say_who_we_are(run: RunFolder) -> bool:
    """Write down which process supervises; False if the disk is too full for that."""
    identity = {
        "pid": os.getpid(),
        "start_ticks": linux.find_start_ticks(os.getpid()),
        "boot_id": linux.get_boot_id(),
    }
    try:
        write_json(run.identity, identity)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return False
    return True


class Supervisor:
    """Runs one attempt."""

    def __init__(self, run: RunFolder, handover: Handover, bell: Bell) -> None:
        self._run, self._handover, self._bell = run, handover, bell
        self._link = Link(
            handover.url, handover.token, handover.attempt_id, run.handover, bell.ring
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(bell.readable, selectors.EVENT_READ, bell.clear)
        self._lease: Lease | None = None
        self._cgroup: Cgroup | None = None
        self._memory: MemoryWatch | None = None
        self._ranks: Ranks | None = None
        self._socket: RankSocket | None = None
        self._fence_at_s = linux.boottime_s() + handover.fence_s

    def run(self) -> int:
        """Run the attempt to its end; 0 when the service has its exit."""
        try:
            assignment = self._fetch_assignment()
            goods = delivery.Delivery(
                self._link, self._run, [place.rank for place in assignment.places]
            )
            record = self._execute(assignment, goods)
            return 0 if self._conclude(record, goods) else 1
        except Stale as error:
            self._kill_everything()
            delivery.mark_stale(self._run, self._link, error)
        except GivenUp as error:
            delivery.mark_exit(self._run, gave_up=str(error))
        except Exception:  # noqa: BLE001  whatever it was, a salvage takes over
            traceback.print_exc()
        finally:
            self._kill_everything()
        return 1

    def _fetch_assignment(self) -> Assignment:
        started_s = linux.boottime_s()
        value = self._link.call_patiently("GET", "assignment", wait=self._pause)
        assignment = parse_assignment(value)
        self._lease = Lease(
            self._link,
            started_s=started_s,
            heartbeat_s=assignment.heartbeat_s,
            fence_s=assignment.fence_s,
            on_news=self._bell.ring,
        )
        self._lease.start()
        self._bell.renew = self._lease.renew_now
        return assignment

    def _execute(self, assignment: Assignment, goods: delivery.Delivery) -> dict[str, Any]:
        """Run the ranks to their end; return the exit record when nothing runs any more."""
        verdict = self._run_ranks(assignment, goods)
        ends = dict(self._ranks.ends) if self._ranks is not None else {}
        memory = self._memory.sum_up(self._cgroup) if self._memory else MemoryFacts()
        if not self._kill_everything():
            verdict = Verdict("failed", "NodeFailure", "some processes cannot be killed")
        elif ends and self._run.is_damaged():
            verdict = Verdict("failed", "SupervisorDied", FOLDER_LOST)
        for place in assignment.places:
            end = ends.get(place.rank) or RankEnd(place.rank, None, None, True, len(ends))
            line = None if end.is_good else read_last_line(self._run.log(place.rank, "stderr"))
            ends[place.rank] = end.with_last_line(line)
        if verdict is None:
            asked = (assignment.spec.get("resources") or {}).get("memory_gib")
            verdict = judge(list(ends.values()), memory, memory_gib=asked)
        return {
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "message": verdict.message,
            "ranks": describe_ranks(list(ends.values()), verdict, goods.find_last_steps()),
        }

    def _run_ranks(self, assignment: Assignment, goods: delivery.Delivery) -> Verdict | None:
        """Stage, start and watch; None when the ranks ended by themselves."""
        try:
            watch = self._start(assignment, goods)
            verdict = watch.run()
        except CannotStart as error:
            return Verdict("failed", error.reason, str(error))
        except Refused as error:
            return Verdict("failed", "SetupFailed", f"the service refused: {error}")
        except GivenUp as error:
            return self._explain_giving_up(error)
        except OSError as error:
            traceback.print_exc()
            if is_disk_full(error):
                folder = self._handover.node_dir
                return Verdict("failed", "StorageUnavailable", describe_full_disk(folder))
            return Verdict("failed", "NodeFailure", f"the node failed: {error}")
        if verdict is None and watch.stop is not None:
            return self._explain_stop()
        return verdict

    def _start(self, assignment: Assignment, goods: delivery.Delivery) -> Watch:
        assert self._lease is not None
        self._run.make()
        cache = NodeFolder(self._handover.node_dir).cached_files
        Stager(self._link, self._run, cache, self._pause).stage(assignment)
        self._cgroup = make_cgroup(self._handover.cgroup_root, self._handover.attempt_id)
        asked_gib = (assignment.spec.get("resources") or {}).get("memory_gib")
        if self._cgroup is not None and asked_gib is not None:
            self._cgroup.limit_memory(int(asked_gib * 2**30) * len(assignment.places))
        self._memory = MemoryWatch()
        self._socket = RankSocket(self._run.socket, goods.committer.add, self._selector)
        self._lease.say(phase="starting")
        goods.start()
        starter = Starter(
            assignment, self._run, self._handover, self._lease, self._cgroup, self._pause
        )
        ranks = self._ranks = starter.start()
        memory, cgroup = self._memory, self._cgroup
        replacer = Replacer(
            assignment,
            self._run,
            ranks,
            start_again=lambda rank: starter.start_again(ranks, rank),
            is_harmless=lambda end: is_harmless(end, memory.sum_up(cgroup), asked_gib),
        )
        self._selector.register(self._ranks.wire, selectors.EVENT_READ, self._ranks.read)
        return Watch(
            self._ranks, assignment.places, self._socket, self._lease, self._link, self._bell,
            self._selector, Health(assignment, self._run, self._ranks, self._memory), replacer,
            lambda: goods.committer.is_busy,
        )  # fmt: skip

    def _conclude(self, record: dict[str, Any], goods: delivery.Delivery) -> bool:
        """Write the exit down, deliver everything, report; True when the service has it all."""
        assert self._lease is not None
        delivery.write_exit(self._run, record)
        self._lease.say(phase="finalizing", now=self._lease.has_unsaid_progress())
        goods.finish(self._pause_delivery)
        record = goods.settle_exit(record)
        # Nothing may be said after the exit: the service would take it for a stale attempt's.
        self._lease.flush(timeout_s=_FLUSH_LIMIT_S)
        is_accepted = delivery.report_exit(self._link, self._run, record, self._pause_delivery)
        self._lease.end()
        return is_accepted

    def _kill_everything(self) -> bool:
        """Kill all that the attempt has started here; True when nothing is left."""
        is_empty = True
        ranks, self._ranks = self._ranks, None
        if ranks is not None:
            self._selector.unregister(ranks.wire)
            is_empty = ranks.end_everything()
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.drain()
            socket.close()
            if self._lease is not None and socket.progress is not None:
                self._lease.say_progress(socket.progress)
        cgroup, self._cgroup = self._cgroup, None
        if cgroup is not None:
            # Without ranks, an environment's build may have left something.
            is_empty = cgroup.kill_until_empty(deadline_s=time.monotonic() + 5.0) and is_empty
            cgroup.remove()
        return is_empty

    def _explain_giving_up(self, error: GivenUp) -> Verdict:
        if self._is_stop_wanted() or self._bell.is_end_asked:
            return self._explain_stop()
        return Verdict("lost", "LeaseLost", f"the service was away for too long: {error}")

    def _explain_stop(self) -> Verdict:
        if self._is_stop_wanted():
            return Verdict("stopped")
        return Verdict("failed", "NodeFailure", "the supervisor was told to end by a signal")

    def _is_stop_wanted(self) -> bool:
        return self._lease is not None and self._lease.wanted.action == "stop"

    def _pause(self, seconds: float) -> bool:
        """Wait before the ranks run; True when there is no point in going on."""
        end_s = linux.boottime_s() + seconds
        while True:
            if self._lease is not None:
                self._fence_at_s = self._lease.fence_at_s
            now_s = linux.boottime_s()
            if (
                now_s >= self._fence_at_s
                or self._is_stop_wanted()
                or self._bell.is_end_asked
                or self._link.is_stale.is_set()
            ):
                return True
            if now_s >= end_s:
                return False
            for key, _events in self._selector.select(min(end_s, self._fence_at_s) - now_s):
                key.data()

    def _pause_delivery(self, seconds: float) -> bool:
        """Wait when nothing runs any more; True when a salvage should go on later."""
        assert self._lease is not None
        if seconds > 0:
            for key, _events in self._selector.select(seconds):
                key.data()
        silent_s = linux.boottime_s() - self._lease.renewed_s
        return silent_s > _DELIVERY_LIMIT_S or self._bell.is_end_asked
