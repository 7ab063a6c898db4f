"""`python -m api demo`: what Trainmaster does, in about a minute, on this machine.

Everything goes through the public API, with the public client: the demo shows nothing that a user
could not do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from rich.console import Console

from api.demo.server import LocalService, ServerError
from api.demo.story import DemoFailed, Story, tell
from api.settings import Settings
from trainmaster import TrainmasterError


def run(role: str, settings: Settings, arguments: list[str]) -> int:
    """Serve if needed, train, fetch, verify; return 0 only if all of that happened."""
    parser = argparse.ArgumentParser(prog=f"python -m api {role}", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end the service that was started")
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    parser.add_argument("--workers", type=int, default=2, help="ranks to train with (2)")
    options = parser.parse_args(arguments)
    # With --json the last line of the output is for a program; people read the other stream.
    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    story = Story(started_at=time.time())
    service = LocalService(settings, console)
    status = 1
    try:
        service.ensure()
        tell(story, service, console, num_workers=options.workers)
        status = 0
    except (ServerError, DemoFailed, TrainmasterError) as error:
        console.print(f"demo failed: {error}", markup=False, style="bold red")
    except KeyboardInterrupt:
        console.print("interrupted")
        status = 130
    finally:
        if options.exit or (status and service.was_started):
            service.end()
        elif service.was_started:
            console.print(service.describe_running(), markup=False)
    if options.json:
        sys.stdout.write(json.dumps(story.summary()) + "\n")
    return status
