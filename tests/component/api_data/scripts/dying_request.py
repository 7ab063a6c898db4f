"""Answers requests, each in a process of its own that is killed with SIGKILL where it is told.

Reads one JSON object a line: `database` (URL), `folder` (of storage/), `kill_at`
(`module:name:before|after`), and the request: `method`, `path`, `headers`, `body` (base64).
Answers each with a line: the signal that ended the process, or what it said instead of dying.
"""

import base64
import functools
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from api.app import create_app
from api.config import ApiConfig
from models import Database, DatabaseConfig


def arm(kill_at: str) -> None:
    """Make the named function kill this process."""
    module_name, name, moment = kill_at.split(":")
    owner: Any = importlib.import_module(module_name)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, last)

    @functools.wraps(real)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        if moment == "after":
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, last, deadly)


def answer(said: dict[str, Any]) -> str:
    """Answer the request, as far as that goes; return what came of it."""
    folder = Path(said["folder"])
    config = ApiConfig(
        storage_dir=folder / "storage",
        recipes_dir=folder,
        signing_key=b"k" * 32,
        allowed_hosts=("testserver",),
    )
    app = create_app(config, Database(DatabaseConfig(url=said["database"])))
    arm(said["kill_at"])
    given = TestClient(app).request(
        said["method"],
        said["path"],
        headers=said["headers"],
        content=base64.b64decode(said["body"]),
    )
    return f"{given.status_code} {given.text}"


def answer_in_child(said: dict[str, Any]) -> str:
    """Answer in a forked process; return how that ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            text = answer(said)
        except BaseException:  # noqa: BLE001  a process that was to die says what happened instead
            text = traceback.format_exc()
        os.write(writer, text.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text


for line in sys.stdin:
    print(json.dumps(answer_in_child(json.loads(line))), flush=True)
