"""Turn a process that was just forked into a rank: nothing of ours is left when user code starts.

Runs after a fork, either in a plain nursery (then the job's interpreter is executed) or in a
preloaded one (then the user's program runs in this very process, as `python train.py` would run
it). Knows nothing of attempts; torch is touched only if it is already imported.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import importlib.util
import io
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import SOURCE_SUFFIXES, SourceFileLoader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from workers.supervisor import linux
from workers.supervisor.cgroup import Cgroup
from workers.supervisor.stacks import STACK_SIGNAL

Order = Mapping[str, Any]

# Kept alive for the life of rank 0: the peers' store lives in it.
_stores: list[Any] = []


def launch_by_exec(order: Order, fds: Sequence[int]) -> NoReturn:
    """Become the order's program: its `argv` under its `environment`."""
    _settle(order, fds)
    os.execve(order["argv"][0], order["argv"], order["environment"])


def launch_in_place(
    order: Order, fds: Sequence[int], *, startup_modules: frozenset[str], paths: Sequence[str]
) -> NoReturn:
    """Run the order's program in this process and exit as the interpreter would.

    `startup_modules` are those a bare interpreter has before any user code; `paths` is the
    interpreter's own `sys.path` without a script's folder.
    """
    listener = fds[2] if len(fds) > 2 else None
    kept = _settle(order, fds)
    environment = dict(order["environment"])
    os.environ.clear()  # noqa: TID251  the rank's environment is built, not inherited
    os.environ.update(environment)  # noqa: TID251  as above
    linux.show_environment(environment)
    linux.set_process_name(f"tm-rank-{order['rank']}")
    time.tzset()
    _open_standard_streams()
    _forget_preloading(int(order["threads"]))
    _allow_stacks(order["stacks"])
    if listener is not None and order["store"] is not None:
        _start_store(order["store"], kept[0])
    _leave(_run_program(order, startup_modules, paths))


def _settle(order: Order, fds: Sequence[int]) -> list[int]:
    """Take the rank's place: group, cgroup, folder, descriptors, signals.

    Returns the descriptors that stay open beyond the standard three.
    """
    os.setpgid(0, 0)
    if order["cgroup"]:
        Cgroup(Path(order["cgroup"])).add(0)
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP) and number in signal.valid_signals():
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    kept: list[int] = []
    for extra in fds[2:]:
        os.dup2(extra, 3 + len(kept))
        kept.append(3 + len(kept))
    os.closerange(3 + len(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.umask(0o077)
    os.chdir(order["folder"])
    return kept


def _open_standard_streams() -> None:
    """Make sys.stdin, stdout and stderr what a fresh interpreter has under PYTHONUNBUFFERED."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8"
    )
    for name, fd, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(fd, "w", closefd=False)
        # Unbuffered below the text layer, as with PYTHONUNBUFFERED.
        stream = io.TextIOWrapper(
            cast("BinaryIO", raw), encoding="utf-8", errors=errors, line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _forget_preloading(threads: int) -> None:
    """Drop what this process shares with its siblings and should not: seeds, caches, threads."""
    random.seed()
    tempfile.tempdir = None
    vars(warnings).setdefault("onceregistry", {}).clear()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None and threads != 1:
        torch.set_num_threads(threads)


def _allow_stacks(path: str) -> None:
    """Have the stacks of all threads written there at a signal, whatever the program imports."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # a rank runs without
        faulthandler.register(STACK_SIGNAL, file=os.open(path, flags, 0o600), all_threads=True)


def _start_store(store: Mapping[str, Any], listener: int) -> None:
    """Serve the gang's store on the listening socket that the supervisor bound."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None:
        raise RuntimeError("torch.distributed is not preloaded; a store cannot be served")
    _stores.append(
        distributed.TCPStore(
            store["host"],
            int(store["port"]),
            None,
            True,
            wait_for_workers=False,
            master_listen_fd=listener,
        )
    )


def _run_program(order: Order, startup_modules: frozenset[str], paths: Sequence[str]) -> int:
    """Run the script or module as `__main__`; return the exit code the interpreter would."""
    main = types.ModuleType("__main__")
    vars(main)["__builtins__"] = sys.modules["builtins"]
    vars(main)["__annotations__"] = {}
    sys.modules["__main__"] = main
    folder = Path(order["folder"])
    is_script = order["kind"] == "script"
    target = str(folder / order["target"]) if is_script else order["target"]
    first = str(Path(os.path.realpath(target)).parent) if is_script else str(folder)
    sys.path[:] = [first, *paths]
    sys.argv[:] = [order["target"] if is_script else "-m", *order["args"]]
    vars(sys)["orig_argv"] = list(order["argv"])
    _forget_shadowed(Path(first), startup_modules)
    try:
        code = _load_script(main, target) if is_script else _load_module(main, target)
        exec(code, vars(main))
    except SystemExit as leave:
        return _exit_code(leave)
    except KeyboardInterrupt as error:
        _print_exception(error)
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001  reported as the interpreter reports it
        _print_exception(error)
        return 1
    return 0


def _load_script(main: types.ModuleType, path: str) -> types.CodeType:
    main.__file__ = path
    vars(main)["__cached__"] = None
    main.__loader__ = SourceFileLoader("__main__", path)
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _load_module(main: types.ModuleType, name: str) -> types.CodeType:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or not isinstance(spec.loader, InspectLoader):
        raise SystemExit(f"No module named {name}")
    code = spec.loader.get_code(spec.name)
    if code is None:
        raise SystemExit(f"No code object available for {name}")
    main.__spec__, main.__loader__ = spec, spec.loader
    main.__package__ = spec.parent
    main.__file__ = spec.origin
    sys.argv[0] = spec.origin or "-m"
    return code


def _forget_shadowed(folder: Path, startup_modules: frozenset[str]) -> None:
    """Drop preloaded modules whose names the user's own top-level files take.

    What a bare interpreter imports before user code stays, as it does there.
    """
    own = set()
    for entry in folder.iterdir():
        if entry.suffix in SOURCE_SUFFIXES or (entry / "__init__.py").is_file():
            own.add(entry.name.partition(".")[0])
    shadowed = {name for name in own if name in sys.modules and name not in startup_modules}
    if not shadowed - {"__main__"}:
        return  # walking the table would copy a page for nearly every name in it
    for name in list(sys.modules):
        if name.partition(".")[0] in shadowed and name not in startup_modules | {"__main__"}:
            del sys.modules[name]


def _exit_code(leave: SystemExit) -> int:
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    sys.stdout.flush()
    sys.stderr.write(f"{leave.code}\n")
    return 1


def _print_exception(error: BaseException) -> None:
    """Print the traceback as the interpreter would, without this module's frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.stdout.flush()
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def _leave(code: int) -> NoReturn:
    """End as the interpreter ends: join threads, run atexit, flush; then without destructors."""
    try:
        vars(threading)["_shutdown"]()
        atexit._run_exitfuncs()
    except BaseException as error:  # noqa: BLE001  printed, as the interpreter does
        _print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code == 128 + signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)
