"""Trains with steps that are timed waits, and writes each one down; others may die meanwhile.

The config: `folder`, for a file of each life of a rank, named rank.nanoseconds.pid; `steps` and
`step_s`. Lines: when a step ended in Unix seconds, its number, its samples here.
"""

import os
import time
from pathlib import Path

import torch
from torch.nn import functional

from trainmaster import train

with train.start(seed=1) as run:
    config = run.config
    life = f"{run.rank}.{time.time_ns()}.{os.getpid()}"
    model = run.model(torch.nn.Linear(64, 64))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    rows = torch.ones(8 * run.world_size * config["steps"], 64)
    loop = run.steps((rows,), batch_size=8 * run.world_size, epochs=1)
    with (Path(config["folder"]) / life).open("w", buffering=1) as told:
        for step, (x,) in loop:
            time.sleep(config["step_s"] * len(x) / 8)
            run.backward(functional.mse_loss(model(x), x))
            optimizer.step()
            told.write(f"{time.time()} {step} {len(x)}\n")
