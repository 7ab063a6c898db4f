"""What a rank shows of itself: a page of numbers that its supervisor reads, whatever the rank does.

Writing is a store to memory: no call, no lock, no message. The page is a file, so it can be read
while the rank is stuck inside a call of a library, and after it has died. The supervisor has its
own copy of the slots; a test holds the two together. Knows nothing of who reads it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import weakref

VERSION = 1.0
NUM_SLOTS = 32
PHASES = ("data_wait", "compute", "communication", "checkpoint", "idle")

STEPS_UNTIL_JUDGED = 2  # before, nobody knows how long a step takes here

# One number each.
SLOT_VERSION = 0
SLOT_BEAT_AT_S = 1  # CLOCK_BOOTTIME
SLOT_STEP = 2
SLOT_STEPS_TAKEN = 3  # by this process
SLOT_EXPECTS_STEP = 4
SLOT_PHASE = 5  # its number in PHASES, -1 where nobody measures
SLOT_PHASE_SINCE_S = 6
SLOT_GPU_PEAK_BYTES = 7
SLOT_LONGEST_GAP_S = 8  # between two beats, from the second step on: the first may compile
SLOT_SECONDS = 16  # and one for each of PHASES: how long it has lasted so far

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has ranks supervised


class Pulse:
    """This process's page; a forked child writes into memory of its own instead."""

    def __init__(self, path: str | None = None) -> None:
        """Show the page at `path`; without one, or where it cannot be made, to nobody."""
        self._slots = _open_page(path) if path is not None else _private_page()
        self._slots[SLOT_STEP] = self._slots[SLOT_PHASE] = -1.0
        self._slots[SLOT_VERSION] = VERSION
        page = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(page()))

    def beat(self) -> None:
        """Show that the training goes on."""
        slots, now_s = self._slots, time.clock_gettime(_CLOCK)
        gap_s = now_s - slots[SLOT_BEAT_AT_S]
        if gap_s > slots[SLOT_LONGEST_GAP_S] and slots[SLOT_STEPS_TAKEN] >= STEPS_UNTIL_JUDGED:
            slots[SLOT_LONGEST_GAP_S] = gap_s
        slots[SLOT_BEAT_AT_S] = now_s

    def note_step(self, step: int, *, is_last: bool = False) -> None:
        """Show how far the training is, and that it goes on.

        Args:
            step: as said before, or a later one.
            is_last: no further one is to be expected.
        """
        slots = self._slots
        if slots[SLOT_STEP] not in (-1.0, step):
            slots[SLOT_STEPS_TAKEN] += 1.0
        slots[SLOT_STEP] = step
        slots[SLOT_EXPECTS_STEP] = 0.0 if is_last else 1.0
        self.beat()

    def expect_no_step(self) -> None:
        """Show that no further step is to be expected for now."""
        self._slots[SLOT_EXPECTS_STEP] = 0.0
        self.beat()

    def enter(self, phase: int) -> None:
        """Show what the rank is doing from now on: a number in PHASES."""
        self._slots[SLOT_PHASE_SINCE_S] = time.clock_gettime(_CLOCK)
        self._slots[SLOT_PHASE] = phase

    def add_seconds(self, phase: int, seconds: float) -> None:
        """Show that a phase has lasted so much longer."""
        self._slots[SLOT_SECONDS + phase] += seconds

    def note_gpu_peak(self, size_bytes: int) -> None:
        """Show the most memory that was ever held on the GPU."""
        self._slots[SLOT_GPU_PEAK_BYTES] = size_bytes


def _open_page(path: str) -> memoryview[float]:
    size_bytes = NUM_SLOTS * 8
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Written, not only made long: on a full disk this fails, where a store would kill.
            if os.write(handle, bytes(size_bytes)) == size_bytes:
                return memoryview(mmap.mmap(handle, size_bytes)).cast("d")
        finally:
            os.close(handle)
    return _private_page()


def _private_page() -> memoryview[float]:
    return memoryview(bytearray(NUM_SLOTS * 8)).cast("d")


def _forget(pulse: Pulse | None) -> None:
    if pulse is not None:
        pulse._slots = _private_page()
