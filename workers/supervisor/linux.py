"""The few Linux facts and calls the node needs and the standard library does not wrap.

Knows nothing of attempts, ranks or the service.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def boottime_s() -> float:
    """Return seconds since boot, time asleep included; no clock setting moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def get_boot_id() -> str:
    """Return the random id of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def find_start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None if it is gone.

    With the boot id it tells a process from a later one that was given the same number. A zombie
    counts as gone: nothing of it runs any more.
    """
    stat = _find_stat(pid)
    if stat is None or stat[0] in (b"Z", b"X"):
        return None
    return int(stat[19])


def find_parent(pid: int) -> int | None:
    """Return the parent's pid, or None if the process is gone or a zombie."""
    stat = _find_stat(pid)
    if stat is None or stat[0] in (b"Z", b"X"):
        return None
    return int(stat[1])


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process the signal when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def set_process_name(name: str) -> None:
    """Set the short name that `ps` and `top` show; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def show_environment(environment: dict[str, str]) -> None:
    """Make /proc/<pid>/environ of this forked process say what its environment now is.

    The kernel shows the memory that the environment had at exec, so a fork server starts with
    room reserved there (see `reserved_environment`). What does not fit is left out at the end.
    """
    stat = _find_stat(os.getpid())
    if stat is None or len(stat) < 49:
        return
    start, end = int(stat[47]), int(stat[48])
    if start == 0 or end <= start:
        return
    room = end - start
    block = bytearray()
    for key, value in environment.items():
        entry = os.fsencode(f"{key}={value}") + b"\0"
        if len(block) + len(entry) > room:
            break
        block += entry
    ctypes.memmove(start, bytes(block.ljust(room, b"\0")), room)


def reserved_environment() -> dict[str, str]:
    """Return a variable that reserves room for `show_environment`; the fork server drops it."""
    return {"TRAINMASTER_ROOM": "." * 48 * 1024}


def _find_stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/<pid>/stat from the state on, or None if it is gone."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in brackets may itself hold spaces and brackets.
    return raw[raw.rindex(b")") + 2 :].split()


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
