"""Does one round of a model with half a million parameters; tells what was sent and received.

volume.py '{"sync": {...}}'
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

import torch

from tests.component.train.outer.scripts.replicas import arguments
from trainmaster._order import Cursor
from trainmaster.train.outer import join_outer

settings = arguments()
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
description = {"sync": settings["sync"], "outer": {"grace_s": 5}}
outer = join_outer(description, dict(os.environ), replica=rank, num_replicas=world)
torch.manual_seed(0)
model = outer.wrap("model", torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(2))))
outer.begin(Cursor())
before = asdict(outer.counters())
every = settings["sync"]["every"]
for step in range(1, every + 1):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    outer.after_step(step, 1)
after = asdict(outer.counters())
outer.close()
Path(f"{rank}.json").write_text(
    json.dumps(
        {
            "parameters": sum(each.numel() for each in model.parameters()),
            "framed_sent": after["framed_sent"] - before["framed_sent"],
            "framed_received": after["framed_received"] - before["framed_received"],
            "sent": after["sent"]["round"],
            "received": after["received"]["round"],
        }
    )
)
