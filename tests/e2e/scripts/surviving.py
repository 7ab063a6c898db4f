"""Trains while others are killed; each life of a rank writes down how far it has come.

The config: `folder`, for files named rank.nanoseconds.pid; `steps`; `doomed`, a rank that never
gets a step done.
"""

import json
import os
import time
from pathlib import Path

import torch
from torch.nn import functional

from trainmaster import train

with train.start(seed=1) as run:
    told = Path(run.config["folder"]) / f"{run.rank}.{time.time_ns()}.{os.getpid()}"
    model = run.model(torch.nn.Linear(4, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = (torch.ones(4096, 4),)
    for step, (x,) in run.steps(data, batch_size=4 * run.world_size, steps=run.config["steps"]):
        told.write_text(json.dumps({"step": step}))
        time.sleep(0.02)
        if run.config.get("doomed") == run.rank:
            os.kill(os.getpid(), 9)
        run.backward(functional.mse_loss(model(x), torch.zeros(len(x), 1)))
        optimizer.step()
    final = sum(each.sum().item() for each in model.parameters())
    told.write_text(json.dumps({"step": step, "final": final}))
