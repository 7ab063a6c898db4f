"""Carry home what a dead supervisor left: deliver what is there, report the end, start nothing."""

from __future__ import annotations

import selectors
import traceback
from typing import Any

from workers.supervisor import delivery, linux
from workers.supervisor.bell import Bell
from workers.supervisor.cgroup import find_cgroup
from workers.supervisor.failures import describe_full_disk
from workers.supervisor.files import find_json
from workers.supervisor.layout import Handover, RunFolder
from workers.supervisor.lease import Lease
from workers.supervisor.link import GivenUp, Link, Stale
from workers.supervisor.ranks import kill_leftovers

# The daemon starts another salvage later if this one gives up.
_LIMIT_S = 120.0


def run_salvage(
    run: RunFolder, handover: Handover, bell: Bell, *, is_disk_full: bool = False
) -> int:
    """Deliver the run's logs, metrics and checkpoints, then its exit; 0 when all is told.

    `is_disk_full` says why nothing more can be done here than that.
    """
    try:
        return 0 if _Salvage(run, handover, bell, is_disk_full).run() else 1
    except Exception:  # noqa: BLE001  written down; the daemon tries again
        traceback.print_exc()
        return 1


class _Salvage:
    def __init__(self, run: RunFolder, handover: Handover, bell: Bell, is_disk_full: bool) -> None:
        self._run, self._handover, self._bell = run, handover, bell
        self._is_disk_full = is_disk_full
        self._link = Link(
            handover.url, handover.token, handover.attempt_id, run.handover, bell.ring
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(bell.readable, selectors.EVENT_READ, bell.clear)
        self._started_s = linux.boottime_s()

    def run(self) -> bool:
        cgroup = find_cgroup(self._handover.cgroup_root, self._handover.attempt_id)
        is_empty = kill_leftovers(cgroup, self._run.run_file)
        if cgroup is not None and is_empty:
            cgroup.remove()
        ranks = _find_ranks(self._run)
        goods = delivery.Delivery(self._link, self._run, ranks)
        record = self._find_record(ranks, goods)
        lease = Lease(
            self._link,
            started_s=self._started_s,
            heartbeat_s=self._handover.heartbeat_s,
            fence_s=self._handover.fence_s,
            on_news=self._bell.ring,
        )
        lease.say(phase="finalizing")
        lease.start()
        goods.start()
        try:
            goods.finish(self._wait)
            record = goods.settle_exit(record)
            lease.flush(timeout_s=1.0)
            return delivery.report_exit(self._link, self._run, record, self._wait)
        except Stale as error:
            delivery.mark_stale(self._run, self._link, error)
        except GivenUp as error:
            delivery.mark_exit(self._run, gave_up=str(error))
        finally:
            lease.end()
        return False

    def _find_record(self, ranks: list[int], goods: delivery.Delivery) -> dict[str, Any]:
        """Return the exit that was written down, or else that the supervisor died."""
        written = find_json(self._run.exit_record) or {}
        record = written.get("record")
        if isinstance(record, dict):
            delivery.write_exit(self._run, record)  # without the marks of earlier tries
            return record
        last_steps = goods.find_last_steps()
        reason, message = "SupervisorDied", "the supervisor died; its ranks were killed"
        if self._is_disk_full:
            reason, message = "StorageUnavailable", describe_full_disk(self._handover.node_dir)
        record = {
            "outcome": "lost",
            "reason": reason,
            "message": message,
            "ranks": [
                {
                    "rank": rank,
                    "code": None,
                    "signal": None,
                    "class": "infra",
                    "last_step": last_steps[rank],
                }
                for rank in ranks
            ],
        }
        delivery.write_exit(self._run, record)
        return record

    def _wait(self, seconds: float) -> bool:
        if seconds > 0:
            for key, _events in self._selector.select(seconds):
                key.data()
        is_late = linux.boottime_s() - self._started_s > _LIMIT_S
        return is_late or self._bell.is_end_asked


def _find_ranks(run: RunFolder) -> list[int]:
    """Return the ranks that were started, as their log files tell."""
    names = {path.name.partition(".")[0] for path in run.logs.glob("*.std*")}
    return sorted(int(name) for name in names if name.isdigit())
