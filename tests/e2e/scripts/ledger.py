"""A trainer that keeps its own books: every step is in a ledger outside the service.

Config: ledger (path), steps, step_seconds, checkpoint_every; ignore_sigterm keeps it from ending.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from trainmaster import current_run

run = current_run()
config = run.config
book = os.open(config["ledger"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
attempt = json.loads(Path(os.environ["TRAINMASTER_RUN"]).read_text())["attempt_number"]


def note(kind, **values):
    entry = {
        "kind": kind,
        "attempt": attempt,
        "rank": run.rank,
        "pid": os.getpid(),
        "at": time.time(),
    }
    os.write(book, (json.dumps({**entry, **values}) + "\n").encode())


if config.get("ignore_sigterm"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

saved = run.latest_checkpoint()
first = 0
if saved is not None:
    first = json.loads((saved.path / "state.json").read_text())["step"]
note("start", step=first)

for step in range(first + 1, config["steps"] + 1):
    if run.should_stop() and not config.get("ignore_sigterm"):
        note("stopped", step=step - 1)
        break
    time.sleep(config.get("step_seconds", 0.01))
    print(f"attempt {attempt} step {step}", flush=True)
    run.log(step, loss=1.0 / step)
    note("step", step=step)
    is_wanted = config.get("on_request") and run.checkpoint_requested()
    if is_wanted or step % config.get("checkpoint_every", 10) == 0 or step == config["steps"]:
        folder = run.checkpoint_dir()
        (folder / "state.json").write_text(json.dumps({"step": step}))
        (folder / "weights.bin").write_bytes(
            bytes([step % 256]) * config.get("checkpoint_bytes", 1000)
        )
        run.commit_checkpoint(folder, step, loss=1.0 / step)
        note("checkpoint", step=step)
else:
    note("end", step=config["steps"])
    sys.exit(config.get("exit_code", 0))
