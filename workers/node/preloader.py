"""The preloader: imports torch and friends once, then forks ranks that start in milliseconds.

Run as a plain script by the *job's* interpreter, with the supervisor's zip as its library:

    python preloader.py <socket> <supervisor.zip> <owner lock> <orphan seconds> <idle seconds> <fd>

It imports and never computes: a child forked after a parallel computation deadlocks. One serves
one project, so that no two projects' ranks ever share a parent.
"""

from __future__ import annotations

import sys

_STARTUP_MODULES = frozenset(sys.modules)
_PATHS = tuple(sys.path[1:])  # without this script's own folder

import functools
import importlib
import os
import pkgutil
import traceback
import weakref
from pathlib import Path

sys.path[0] = sys.argv[2]
from workers.supervisor import forkserver, linux, nursery, rank_process, wire

# What jobs import first, the heavy ones; a missing one is skipped.
_WANTED = (
    "numpy",
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.optim",
    "torch.utils.data",
    "safetensors.torch",
    "sklearn.datasets",
    "trainmaster.run",
    "trainmaster.train",
)
_WANTED_WHOLE = ("trainmaster.train", "trainmaster.recipes")


def main(path: Path, owner_lock: Path, orphan_s: float, idle_s: float, ready_fd: int) -> None:
    """Serve nurseries at `path` until replaced, removed, orphaned or idle."""
    os.umask(0o077)
    linux.set_process_name("tm-preloader")
    sys.path[:] = _PATHS
    # A user's own `workers` package must be found, so ours leaves the table of modules.
    for name in [name for name in sys.modules if name.partition(".")[0] == "workers"]:
        del sys.modules[name]
    forkserver.serve(
        path,
        _become_nursery,
        owner_lock=owner_lock,
        orphan_s=orphan_s,
        ready_fd=ready_fd,
        idle_s=idle_s,
        prepare=_preload,
    )


def _preload() -> None:
    for name in _WANTED:
        _import(name)
    for name in _WANTED_WHOLE:
        package = _import(name)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            _import(f"{name}.{module.name}")
    # Torch dismantles its operator tables at exit. A process that ends without destructors
    # gains nothing from it, and a forked one copies 30 MB for it (30 ms).
    for finalizer in list(vars(weakref.finalize)["_registry"]):
        finalizer.atexit = False
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"an import has started {threads - 1} threads: a fork would deadlock")


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    except Exception:  # noqa: BLE001  whatever a package does at import, other jobs must start
        traceback.print_exc()
        return None


def _become_nursery(connection: wire.Wire) -> int:
    connection.socket.settimeout(10.0)
    opening = connection.receive()
    if opening is None:
        return 0
    launch = functools.partial(
        rank_process.launch_in_place, startup_modules=_STARTUP_MODULES, paths=_PATHS
    )
    has_store = "torch.distributed" in sys.modules
    return nursery.Nursery(connection, opening, launch, has_store=has_store).run()


if __name__ == "__main__":
    main(
        path=Path(sys.argv[1]),
        owner_lock=Path(sys.argv[3]),
        orphan_s=float(sys.argv[4]),
        idle_s=float(sys.argv[5]),
        ready_fd=int(sys.argv[6]),
    )
