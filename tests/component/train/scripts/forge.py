"""Forks ranks from a process that has imported torch, as a node's preloader does.

Takes one JSON order per line on stdin and answers each with a line on stdout:
{"start": {"target", "arguments", "environment", "folder", "output"}} → {"pid"}
{"poll": pid} → {"code": exit code, or null while it runs}
"""

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

import trainmaster.recipes.image_classifier
import trainmaster.train  # noqa: F401  what is forked has it, and all of torch


def become_rank(order: dict[str, Any]) -> None:
    """Be a fresh interpreter that was started with this target, as far as a script can see."""
    os.setpgid(0, 0)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, descriptor)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", buffering=1)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv[:] = [order["target"], *order["arguments"]]
    if order["target"].endswith(".py"):
        runpy.run_path(order["target"], run_name="__main__")
    else:
        sys.modules.pop(order["target"], None)  # runpy would warn where it is there already
        runpy.run_module(order["target"], run_name="__main__", alter_sys=True)


def leave(order: dict[str, Any]) -> NoReturn:
    """Run the order and end without taking torch down, which takes longer than the tests do."""
    code: Any = 0
    try:
        become_rank(order)
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:  # noqa: BLE001  as the interpreter itself does
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Obey until stdin ends."""
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else None
            print(json.dumps({"code": code}), flush=True)
            continue
        child = os.fork()
        if child == 0:
            leave(order["start"])
        print(json.dumps({"pid": child}), flush=True)


if __name__ == "__main__":
    main()
