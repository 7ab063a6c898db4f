"""Imports what it brought, and prints all that it can see of where it runs."""

import json
import logging
import os
import sys

import api
import models.net
import scheduler.core
import workers.supervisor

print("own", logging.OWN, api.OWN, models.net.OWN, scheduler.core.OWN, workers.supervisor.OWN)
print("path", json.dumps(sys.path))
print("environment", json.dumps(dict(os.environ)))
print("initial", open("/proc/self/environ", "rb").read().replace(b"\0", b" ").decode())
print(
    "descriptors",
    sorted(
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ),
)
print("parent", open(f"/proc/{os.getppid()}/environ", "rb").read().replace(b"\0", b" ").decode())
