"""When ranks hang, which of them the others wait for, and how to say it. Pure.

A rank that works is no hang, however long it takes: what it does is looked at twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.supervisor.pulse import STEPS_UNTIL_JUDGED, Pulse
from workers.supervisor.stacks import Frame, Stack, find_own_frame

# Who has been silent for so long before may be so again, and this many times longer.
USUAL_GAPS = 3
# A rank that works through something long is judged after this many times `stall_seconds`.
PATIENCE = 3

_IN_COLLECTIVE = re.compile(
    r"(^|/)torch/distributed/|(^|/)torch/nn/parallel/distributed\.py$"
    r"|(^|/)trainmaster/train/(outer|inner|accounting)/|(^|/)horovod/"
)
# Where gradients are exchanged while they are computed, the wait for peers is inside this call.
_IN_BACKWARD = "_engine_run_backward"
# Between a collective and the call that waits: how torch finds an operator, how Python waits.
_PASSED_THROUGH = re.compile(
    r"(^|/)torch/(_ops\.py|_tensor\.py|overrides\.py|_library/|_dynamo/|autograd/function\.py"
    r"|utils/_\w+\.py)|^…/(socket|selectors|ssl|threading|queue)\.py$"
)


@dataclass(frozen=True)
class Missing:
    """The ranks that the others wait for, and what tells so."""

    ranks: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()


def find_silence(pulses: Mapping[int, Pulse], now_s: float, *, after_s: float) -> float | None:
    """Return for how long no rank has done anything; None while that means nothing.

    It means something once a rank has taken two steps, and as long as one has a step to come: the
    first may compile, the second tells how long they take, and what follows the last takes its
    time as well.

    Args:
        pulses: of the ranks that live.
        now_s: on CLOCK_BOOTTIME.
        after_s: when the ranks last waited for us, not for each other.
    """
    if not any(
        pulse.steps_taken >= STEPS_UNTIL_JUDGED and pulse.expects_step for pulse in pulses.values()
    ):
        return None
    return max(0.0, now_s - max(after_s, *(pulse.beat_at_s for pulse in pulses.values())))


def find_patience(stall_s: float, pulses: Mapping[int, Pulse]) -> float:
    """Return how long ranks may be silent: as long as is asked, or longer if they usually are.

    A script that says one step for each epoch of twenty minutes is not hanging after ten. The rank
    that says most counts.
    """
    gaps = [
        pulse.longest_gap_s for pulse in pulses.values() if pulse.steps_taken >= STEPS_UNTIL_JUDGED
    ]
    return max(stall_s, USUAL_GAPS * min(gaps, default=0.0))


def has_moved(before: Mapping[int, Stack], after: Mapping[int, Stack]) -> bool:
    """Whether a rank's main thread is in other functions than it was: then something goes on."""
    return any(
        rank in after and bool(after[rank].route) and after[rank].route != stack.route
        for rank, stack in before.items()
    )


def find_missing(pulses: Mapping[int, Pulse], stacks: Mapping[int, Stack]) -> Missing:
    """Return who is missing from the collective in which the others wait.

    Ranks that are behind in their steps come first; among equals it is those that stand outside
    of a collective while others stand in one.
    """
    ranks = sorted(pulses.keys() | stacks.keys())
    waiting = tuple(rank for rank in ranks if _is_waiting(pulses.get(rank), stacks.get(rank)))
    steps = {rank: pulse.step for rank, pulse in pulses.items() if pulse.step is not None}
    latest = max(steps.values(), default=None)
    behind = [rank for rank in ranks if latest is not None and steps.get(rank, latest) < latest]
    outside = [rank for rank in ranks if rank not in waiting]
    if behind:
        return Missing(tuple(rank for rank in behind if rank in outside) or tuple(behind), waiting)
    if waiting and outside:
        return Missing(tuple(outside), waiting)
    return Missing((), waiting)


def describe_stall(
    silent_s: float,
    pulses: Mapping[int, Pulse],
    stacks: Mapping[int, Stack],
    missing: Missing,
    *,
    world_size: int,
) -> str:
    """Return what a user is told: since when, which rank, and where it stands."""
    step = max((pulse.step for pulse in pulses.values() if pulse.step is not None), default=None)
    since = f"no step for {silent_s:.0f} s" + ("" if step is None else f" (the last was {step})")
    if missing.ranks:
        who = _name_ranks(missing.ranks)
        verb = "is" if len(missing.ranks) == 1 else "are"
        where = _describe_place(missing.ranks[0], pulses, stacks)
        if not missing.waiting:
            return f"{since}: {who} {verb} missing, the others are further{where}"
        waits = "waits" if len(missing.waiting) == 1 else "wait"
        others = f"{_name_ranks(missing.waiting)} {waits}"
        return f"{since}: {who} {verb} missing from the collective in which {others}{where}"
    if world_size == 1:
        return since + _describe_place(0, pulses, stacks).replace("; it stands", ": rank 0 stands")
    if len(missing.waiting) == len(pulses) < world_size:
        return f"{since}: all ranks of this node wait in a collective for ranks of another"
    if missing.waiting:
        return f"{since}: all ranks wait in a collective, none is missing: look at the network"
    return f"{since}: no rank waits in a collective; the stacks tell where each stands"


def find_place(stack: Stack | None) -> Frame | None:
    """Return the user's own innermost call in the main thread."""
    return None if stack is None else find_own_frame(stack.main)


def _is_waiting(pulse: Pulse | None, stack: Stack | None) -> bool:
    if pulse is not None and pulse.phase == "communication":
        return True
    frames: Sequence[Frame] = () if stack is None else stack.main
    if frames and frames[0].function == _IN_BACKWARD:
        return True
    return _is_in_collective(frames)


def _is_in_collective(frames: Sequence[Frame]) -> bool:
    """Whether the innermost call that does something of its own is one of those that meet."""
    own = next((frame for frame in frames if not _PASSED_THROUGH.search(frame.file)), None)
    return own is not None and _IN_COLLECTIVE.search(own.file) is not None


def _describe_place(rank: int, pulses: Mapping[int, Pulse], stacks: Mapping[int, Stack]) -> str:
    frame = find_place(stacks.get(rank))
    pulse = pulses.get(rank)
    doing = {"data_wait": "waiting for data", "checkpoint": "saving"}
    phase = doing.get(pulse.phase or "") if pulse is not None else None
    if frame is None:
        return "" if phase is None else f"; it is {phase}"
    told = f"{frame.function} ({frame.file}, line {frame.line})"
    return f"; it stands in {told}" + ("" if phase is None else f", {phase}")


def _name_ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8]) + (", …" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
