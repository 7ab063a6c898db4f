"""Starts a role of the service that kills itself with SIGKILL at one place, once.

Usage: faulty.py MODULE:QUALIFIED.NAME:before|after ROLE. The product has no hooks for this; the
function is wrapped from outside.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def plant(place: str) -> None:
    """Wrap the function that `place` names."""
    module_name, path, when = place.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            if when == "after":
                await original(*args, **kwargs)
            _die()

        setattr(owner, name, asynchronous)
        return

    @functools.wraps(original)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            original(*args, **kwargs)
        _die()

    setattr(owner, name, synchronous)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from api.__main__ import main  # noqa: PLC0415  the path is set a line above

    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
