"""Trains for a while as one replica, telling its steps; others may die and come back.

surviving.py '{"sync": {...}, "steps": 200, "step_s": 0.01}'
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.replicas import Training, arguments, make_plan
from trainmaster.train.outer import join_outer

settings = arguments()
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
description = {"sync": settings["sync"], "outer": settings.get("outer", {"grace_s": 20})}
outer = join_outer(description, dict(os.environ), replica=rank, num_replicas=world)
plan = make_plan(960, 16, None, settings["steps"])
training = Training(outer, rank, world, "momentum", plan)
training.hand_over()
for step in training.steps():
    if not training.ends:
        time.sleep(settings["step_s"])
    if outer.may_meet(step):
        # What a session says at such a step; every member must say it.
        outer.maximum([step])
    print("step", step, flush=True)
found = outer.joined_at
outer.close()
result = {
    "parameters": training.parameters(),
    "joined_at": None if found is None else found.step,
    "used": training.used,
}
print("done", json.dumps(result), flush=True)
