"""Starts a role of the service that kills itself with SIGKILL at one place, once.

Usage: faulty.py [node@]MODULE:QUALIFIED.NAME:before|after[#N] ROLE. The function is wrapped from
outside, the product has no hooks for this; `#N` means its N-th call, `node@` the first daemon that
the service starts.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def plant(place: str) -> None:
    """Wrap the function that `place` names."""
    module_name, path, when = place.split(":")
    when, _, count = when.partition("#")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, _deadly(getattr(owner, name), when, int(count or 1)))


def _deadly(original: Callable[..., Any], when: str, count: int) -> Callable[..., Any]:
    calls = itertools.count(1)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            is_last = next(calls) == count
            if is_last and when == "before":
                _die()
            result = await original(*args, **kwargs)
            if is_last:
                _die()
            return result

        return asynchronous

    @functools.wraps(original)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == count
        if is_last and when == "before":
            _die()
        result = original(*args, **kwargs)
        if is_last:
            _die()
        return result

    return synchronous


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _plant_in_first_daemon(place: str) -> None:
    daemon: Any = importlib.import_module("api.roles.daemon")
    original = daemon.subprocess.Popen
    starts = itertools.count(1)

    def start(command: list[str], **options: Any) -> Any:
        if next(starts) == 1:
            command = [sys.executable, __file__, place, "node"]
        return original(command, **options)

    daemon.subprocess = type("subprocess", (), {"Popen": staticmethod(start), "DEVNULL": -3})


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from api.__main__ import main

    where = sys.argv[1]
    if where.startswith("node@"):
        _plant_in_first_daemon(where.removeprefix("node@"))
    else:
        plant(where)
    sys.exit(main(sys.argv[2:]))
