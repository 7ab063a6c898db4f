"""Imports what it brought, and prints all that it can see of where it runs."""

import json
import logging
import os
import sys
from pathlib import Path

import models.net

import api
import scheduler.core
import workers.supervisor


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().replace(b"\0", b" ").decode()


print("own", logging.OWN, api.OWN, models.net.OWN, scheduler.core.OWN, workers.supervisor.OWN)
print("path", json.dumps(sys.path))
print("environment", json.dumps(dict(os.environ)))
print("initial", environment_of("self"))
print("descriptors", [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()])
print("parent", environment_of(os.getppid()))
