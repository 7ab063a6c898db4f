"""Read what a rank shows of itself: the page of numbers that it writes while it trains.

The page belongs to the job, so nothing in it is believed before it has been looked at.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.supervisor.files import open_regular

# As the SDK has them in `trainmaster._pulse`; a test compares.
VERSION = 1.0
NUM_SLOTS = 32
PHASES = ("data_wait", "compute", "communication", "checkpoint", "idle")
STEPS_UNTIL_JUDGED = 2
SLOT_VERSION = 0
SLOT_BEAT_AT_S = 1
SLOT_STEP = 2
SLOT_STEPS_TAKEN = 3
SLOT_EXPECTS_STEP = 4
SLOT_PHASE = 5
SLOT_PHASE_SINCE_S = 6
SLOT_GPU_PEAK_BYTES = 7
SLOT_LONGEST_GAP_S = 8
SLOT_SECONDS = 16

_PAGE = struct.Struct(f"={NUM_SLOTS}d")
_INTEGER_LIMIT = 2.0**53


@dataclass(frozen=True)
class Pulse:
    """What one rank showed at one moment.

    Attributes:
        beat_at_s: when it last did something, on CLOCK_BOOTTIME; 0 if never.
        step: how far it is, None if it has not said.
        steps_taken: by this process.
        longest_gap_s: between two things that it did, from its second step on.
        expects_step: whether a further step is to come.
        phase: what it is doing, None where it does not measure.
        phase_since_s: since when, on CLOCK_BOOTTIME.
        seconds: how long each of PHASES has lasted, but for the one that it is in.
        gpu_peak_bytes: the most memory it has held on its GPU.
    """

    beat_at_s: float = 0.0
    step: int | None = None
    steps_taken: int = 0
    longest_gap_s: float = 0.0
    expects_step: bool = False
    phase: str | None = None
    phase_since_s: float = 0.0
    seconds: Sequence[float] = field(default=(0.0,) * len(PHASES))
    gpu_peak_bytes: int = 0


def find_pulse(path: Path) -> Pulse | None:
    """Return what the rank shows, None if it shows nothing that makes sense."""
    try:
        handle = open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        page = os.pread(handle, _PAGE.size, 0)
    except OSError:
        return None
    finally:
        os.close(handle)
    return parse_pulse(page)


def parse_pulse(page: bytes) -> Pulse | None:
    """Return what a page says, None if it is no page of ours."""
    if len(page) != _PAGE.size:
        return None
    slots = _PAGE.unpack(page)
    if slots[SLOT_VERSION] != VERSION or not all(math.isfinite(value) for value in slots):
        return None
    phase = int(slots[SLOT_PHASE])
    step = slots[SLOT_STEP]
    return Pulse(
        beat_at_s=max(0.0, slots[SLOT_BEAT_AT_S]),
        step=int(step) if 0 <= step < _INTEGER_LIMIT else None,
        steps_taken=_count(slots[SLOT_STEPS_TAKEN]),
        longest_gap_s=max(0.0, slots[SLOT_LONGEST_GAP_S]),
        expects_step=slots[SLOT_EXPECTS_STEP] != 0.0,
        phase=PHASES[phase] if 0 <= phase < len(PHASES) else None,
        phase_since_s=max(0.0, slots[SLOT_PHASE_SINCE_S]),
        seconds=[max(0.0, value) for value in slots[SLOT_SECONDS : SLOT_SECONDS + len(PHASES)]],
        gpu_peak_bytes=_count(slots[SLOT_GPU_PEAK_BYTES]),
    )


def _count(value: Any) -> int:
    return int(min(max(value, 0.0), _INTEGER_LIMIT))
