"""Trains as one replica whose step is a wait, the last one's four times as long; tells its rate.

straggler.py '{"sync": {...}, "steps": 40, "step_s": 0.05}'
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.replicas import Training, arguments, make_plan
from trainmaster._order import Cursor
from trainmaster.train.outer import join_outer

settings = arguments()
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
description = {"sync": settings["sync"], "outer": {"grace_s": 5}}
outer = join_outer(description, dict(os.environ), replica=rank, num_replicas=world)
training = Training(outer, rank, world, "sgd", make_plan(10**6, 64, None, settings["steps"]))
training.hand_over()
outer.begin(Cursor())
wait_s = settings["step_s"] * (4 if rank == world - 1 else 1)
times: list[tuple[float, int]] = []
for step in training.steps():
    times.append((time.monotonic(), step))
    time.sleep(wait_s)
counters = asdict(outer.counters())
outer.close()
# Without beginning and end, where some have nothing to do yet, or any more.
first, last = times[len(times) // 8], times[len(times) * 7 // 8]
rate = (last[1] - first[1]) / (last[0] - first[0])
Path(f"{rank}.json").write_text(
    json.dumps({"steps_per_s": rate, "pieces": len(times), "counters": counters})
)
