"""The time in which ranks run: pass wishes on, keep the fence, end them when they must end."""

from __future__ import annotations

import selectors
import signal
from collections.abc import Callable, Sequence
from typing import Any

from workers.supervisor import linux
from workers.supervisor.bell import Bell
from workers.supervisor.channel import RankSocket
from workers.supervisor.environment import RankPlace
from workers.supervisor.exits import Verdict
from workers.supervisor.health import Health
from workers.supervisor.lease import Lease, Wanted
from workers.supervisor.link import Link, Stale
from workers.supervisor.ranks import Ranks
from workers.supervisor.replacing import Replacer

_FAILED_GRACE_S = 2.0
_UNKILLABLE_S = 30.0
_KILL_AGAIN_S = 0.5


class Watch:
    """Watches the ranks of one attempt from the main thread."""

    def __init__(
        self, ranks: Ranks, places: Sequence[RankPlace], socket: RankSocket, lease: Lease,
        link: Link, bell: Bell, selector: selectors.BaseSelector, health: Health,
        replacer: Replacer, is_saving: Callable[[], bool],
    ) -> None:  # fmt: skip
        """`is_saving` tells whether a checkpoint of the ranks is being taken over."""
        self._ranks, self._places, self._socket = ranks, places, socket
        self._lease, self._link, self._bell, self._selector = lease, link, bell, selector
        self._health, self._is_saving = health, is_saving
        self._replacer = replacer
        self._fence_at_s = lease.fence_at_s
        self._seen_serial = 0
        self._kill_at_s: float | None = None
        self._killing_since_s: float | None = None
        self._told: Any = None
        self._told_looks = 0
        self.stop: Wanted | None = None

    def run(self) -> Verdict | None:
        """Watch until every rank has ended (None) or the attempt must end as the verdict says.

        Raises:
            Stale: the service has disowned the attempt.
        """
        while len(self._ranks.ends) < len(self._places):
            self._wait_for_events()
            if self._link.is_stale.is_set():
                raise Stale("the service has disowned the attempt")
            verdict = self._find_sudden_end()
            # After that look: a fence that was passed while we slept holds, as it does for the
            # nursery, even if the lease was renewed on the other thread since.
            self._renew_fence()
            verdict = verdict or self._act_on_wishes() or self._find_stall()
            if verdict is not None:
                return verdict
            self._tell()
        return None

    def _wait_for_events(self) -> None:
        now_s = linux.boottime_s()
        # At most a second: select counts monotonic time, the fence counts time asleep, too.
        until_s = min(
            now_s + 1.0,
            self._fence_at_s,
            self._kill_at_s or self._fence_at_s,
            self._health.next_look_s,
        )
        for key, _events in self._selector.select(max(0.0, until_s - now_s)):
            key.data()

    def _renew_fence(self) -> None:
        if self._lease.fence_at_s != self._fence_at_s:
            self._fence_at_s = self._lease.fence_at_s
            self._ranks.move_fence(self._fence_at_s)

    def _find_sudden_end(self) -> Verdict | None:
        if linux.boottime_s() >= self._fence_at_s:
            return Verdict(
                "lost", "LeaseLost", "the service was silent for longer than the fence allows"
            )
        if self._ranks.is_nursery_gone and len(self._ranks.ends) < len(self._places):
            return Verdict("failed", "PreloaderDied", "the process that held the ranks died")
        return None

    def _act_on_wishes(self) -> Verdict | None:
        """Do what the service, the ranks' failures and the clock ask for."""
        wanted = self._lease.wanted
        if wanted.action == "checkpoint" and wanted.serial > self._seen_serial:
            self._seen_serial = wanted.serial
            self._socket.broadcast({"op": "checkpoint"})
        if wanted.action == "stop":
            self._stop_as(wanted)
        elif self._bell.is_end_asked:
            self._stop_as(Wanted("stop", "NodeDraining", wanted.grace_s))
        if self._kill_at_s is None:
            self._replacer.replace()
            if any(not end.is_good for end in self._ranks.ends.values()):
                self._end_ranks(_FAILED_GRACE_S)
        return self._kill_when_due()

    def _find_stall(self) -> Verdict | None:
        is_judged = self._kill_at_s is None and not self._ranks.ends
        return self._health.look(is_judged=is_judged, is_saving=self._is_saving())

    def _stop_as(self, wanted: Wanted) -> None:
        """Tell the ranks to stop, unless they end already; a later wish may shorten the grace."""
        is_first = self.stop is None
        is_other = self.stop is not None and self.stop != wanted
        if (is_first and self._kill_at_s is None) or is_other:
            self.stop = wanted
            self._socket.broadcast(
                {"op": "stop", "reason": wanted.reason, "grace_seconds": wanted.grace_s}
            )
            self._end_ranks(wanted.grace_s)
            self._lease.say(phase="stopping")

    def _end_ranks(self, grace_s: float) -> None:
        kill_at_s = linux.boottime_s() + grace_s
        self._kill_at_s = min(kill_at_s, self._kill_at_s or kill_at_s)
        self._ranks.send_signal(signal.SIGTERM)

    def _kill_when_due(self) -> Verdict | None:
        now_s = linux.boottime_s()
        if self._kill_at_s is None or now_s < self._kill_at_s:
            return None
        self._killing_since_s = self._killing_since_s or now_s
        if now_s >= self._killing_since_s + _UNKILLABLE_S:
            return Verdict("failed", "NodeFailure", "some ranks cannot be killed")
        self._ranks.send_signal(signal.SIGKILL)
        self._kill_at_s = now_s + _KILL_AGAIN_S
        return None

    def _tell(self) -> None:
        """Put what has changed into the lease's report."""
        pids, ends = self._ranks.pids, self._ranks.ends
        state = (dict(pids), sorted(ends))
        if state != self._told:
            self._told = state
            is_running = len(pids) == len(self._places) and not ends and self.stop is None
            changes = {"phase": "running"} if is_running else {}
            self._lease.say(now=is_running, ranks=self._describe_ranks(), **changes)
        elif self._health.num_looks != self._told_looks:
            self._told_looks = self._health.num_looks
            self._lease.note(ranks=self._describe_ranks())
        if self._socket.progress is not None:
            self._lease.say_progress(self._socket.progress)

    def _describe_ranks(self) -> list[dict[str, Any]]:
        described = []
        for place in self._places:
            pid = self._ranks.pids.get(place.rank)
            state = "starting" if pid is None else "running"
            state = "exited" if place.rank in self._ranks.ends else state
            known = self._health.describe(place.rank)
            known.update(self._replacer.describe(place.rank))
            described.append({"rank": place.rank, "pid": pid, "state": state, **known})
        return described
