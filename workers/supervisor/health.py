"""Watch over ranks that hang: ask for their stacks, report them, say that the attempt must end.

Works from the main thread's loop, a look at a time; what is decided, `stalls` decides.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from workers.supervisor import linux, stalls
from workers.supervisor.assignment import Assignment
from workers.supervisor.exits import Verdict, clean_text
from workers.supervisor.layout import RunFolder
from workers.supervisor.memory import MemoryWatch
from workers.supervisor.pulse import Pulse, find_pulse
from workers.supervisor.ranks import Ranks
from workers.supervisor.reports import add_report
from workers.supervisor.stacks import STACK_SIGNAL, Dumps, Stack, group_stacks
from workers.supervisor.times import TimeLine

LOOK_S = 1.0
_SAMPLING_LOOK_S = 0.1
_DUMP_LIMIT_S = 3.0
_BETWEEN_MIN_S, _BETWEEN_MAX_S = 0.5, 10.0
# Other nodes see the same stall a little later; their stacks are worth a wait.
_FOR_OTHER_NODES_S = 5.0
_STACKS_LIMIT_CHARS = 64 * 1024
_STACK_LIMIT_CHARS = 8 * 1024


class Health:
    """The pulses of one attempt's ranks on this node, and what follows from their silence.

    Attributes:
        pulses: as last seen, of the ranks that live.
        num_looks: how often they were looked at.
    """

    def __init__(
        self, assignment: Assignment, run: RunFolder, ranks: Ranks, memory: MemoryWatch
    ) -> None:
        wanted = assignment.spec.get("health") or {}
        self._stall_s: float | None = wanted.get("stall_seconds")
        self._on_stall: str = wanted.get("on_stall") or "restart"
        self._assignment, self._run, self._ranks = assignment, run, ranks
        self._memory = memory
        self._times = TimeLine()
        self._dumps = Dumps(run.stacks, run.code)
        self._judged_times = 0
        self._sampling: _Sampling | None = None
        self._verdict: tuple[float, Verdict] | None = None
        self._next_look_s = self._saved_at_s = 0.0
        self.pulses: dict[int, Pulse] = {}
        self.num_looks = 0

    @property
    def next_look_s(self) -> float:
        """When `look` should be called again, on CLOCK_BOOTTIME."""
        return self._next_look_s

    def look(self, *, is_judged: bool, is_saving: bool) -> Verdict | None:
        """Look at the ranks if it is time; return a verdict when they hang.

        Args:
            is_judged: False while ranks are ending anyway.
            is_saving: whether a checkpoint of theirs is being taken over, which they wait for.
        """
        now_s = linux.boottime_s()
        if now_s < self._next_look_s:
            return None
        self._next_look_s = now_s + LOOK_S
        if self._verdict is not None:
            at_s, verdict = self._verdict
            self._next_look_s = at_s
            return verdict if now_s >= at_s else None
        self._memory.look(self._list_alive())
        self.pulses = self._read_pulses()
        self._times.add(now_s, self.pulses)
        self.num_looks += 1
        if not is_judged or self._stall_s is None:
            self._sampling = None
            return None
        if is_saving:
            self._saved_at_s = now_s
        silent_s = stalls.find_silence(self.pulses, now_s, after_s=self._saved_at_s)
        patience_s = stalls.find_patience(self._stall_s, self.pulses)
        if silent_s is None or silent_s < patience_s:
            self._sampling, self._judged_times = None, 0
            return None
        if self._sampling is None and silent_s < patience_s * (self._judged_times + 1):
            return None
        return self._sample(now_s, silent_s)

    def describe(self, rank: int) -> dict[str, Any]:
        """Return what is known of a rank for the lease; what is not is left out."""
        pulse = self.pulses.get(rank)
        known: dict[str, Any] = {"memory_peak_bytes": self._memory.peaks.get(rank)}
        if pulse is not None:
            known |= {"step": pulse.step, "phase": pulse.phase}
            known["times"] = self._times.find_times(rank)
            known["gpu_memory_peak_bytes"] = pulse.gpu_peak_bytes or None
        return {name: value for name, value in known.items() if value is not None}

    def _list_alive(self) -> dict[int, int]:
        started = self._ranks.pids.items()
        return {rank: pid for rank, pid in started if rank not in self._ranks.ends}

    def _read_pulses(self) -> dict[int, Pulse]:
        found = {}
        for rank in self._list_alive():
            pulse = find_pulse(self._run.pulse(rank))
            if pulse is not None:
                found[rank] = pulse
        return found

    def _sample(self, now_s: float, silent_s: float) -> Verdict | None:
        """Take two samples of the stacks, one look at a time; judge when both are there."""
        assert self._stall_s is not None
        self._next_look_s = now_s + _SAMPLING_LOOK_S
        if self._sampling is None:
            self._sampling = _Sampling()
        sampling = self._sampling
        if sampling.asked_at_s is None:
            if now_s >= sampling.again_at_s:
                sampling.asked_at_s = now_s
                self._ask()
            return None
        if not self._dumps.is_complete() and now_s < sampling.asked_at_s + _DUMP_LIMIT_S:
            return None
        stacks = self._dumps.read()
        sampling.asked_at_s = None
        if sampling.first is None:
            sampling.first = stacks
            between_s = min(max(self._stall_s / 20, _BETWEEN_MIN_S), _BETWEEN_MAX_S)
            sampling.again_at_s = now_s + between_s
            return None
        self._sampling = None
        self._judged_times += 1
        return self._judge(now_s, silent_s, sampling.first, stacks)

    def _ask(self) -> None:
        for rank in self._dumps.begin(self._list_alive()):
            self._ranks.ask_rank(rank, STACK_SIGNAL)

    def _judge(
        self, now_s: float, silent_s: float, before: Mapping[int, Stack], now: dict[int, Stack]
    ) -> Verdict | None:
        missing = stalls.find_missing(self.pulses, now)
        message = stalls.describe_stall(
            silent_s, self.pulses, now, missing, world_size=self._assignment.world_size
        )
        is_at_work = stalls.has_moved(before, now) and self._judged_times < stalls.PATIENCE
        action = "wait" if is_at_work else self._on_stall
        self._report(clean_text(message), silent_s, missing, now, action)
        if is_at_work:
            return None
        wait_s = _FOR_OTHER_NODES_S if self._assignment.num_nodes > 1 else 0.0
        verdict = Verdict("failed", "StallDetected", clean_text(message))
        self._verdict = (now_s + wait_s, verdict)
        self._next_look_s = now_s + wait_s
        return verdict if wait_s == 0.0 else None

    def _report(
        self, message: str, silent_s: float, missing: stalls.Missing, stacks: dict[int, Stack],
        action: str,
    ) -> None:  # fmt: skip
        data: dict[str, Any] = {
            "action": action,
            "silent_seconds": round(silent_s, 1),
            "missing_ranks": list(missing.ranks),
            "waiting_ranks": list(missing.waiting),
            "ranks": [
                {"rank": rank, "step": pulse.step, "phase": pulse.phase}
                for rank, pulse in sorted(self.pulses.items())
            ],
            "stacks": _render_stacks(stacks),
        }
        try:
            add_report(self._run.reports, "stalled", message, data)
        except OSError as error:
            sys.stderr.write(f"a stall is not reported: {error}\n")


class _Sampling:
    """Two looks at the stacks, under way."""

    def __init__(self) -> None:
        self.first: dict[int, Stack] | None = None
        self.asked_at_s: float | None = None
        self.again_at_s = 0.0


def _render_stacks(stacks: dict[int, Stack]) -> list[dict[str, Any]]:
    """Return who stands where; ranks in the same place are told together."""
    groups = group_stacks(stacks)
    limit = min(_STACK_LIMIT_CHARS, _STACKS_LIMIT_CHARS // max(1, len(groups)))
    return [{"ranks": ranks, "stack": stack.render(limit)} for ranks, stack in groups]
