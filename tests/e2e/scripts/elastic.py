"""A regression in float64 that writes down which samples each rank took in each step.

Config: ledger (path), step_seconds.
"""

import json
import os
import time

import torch
from torch import nn

from trainmaster import train

NUM_SAMPLES = 48

with train.start(defaults={"step_seconds": 0.0}) as run:
    book = os.open(run.config["ledger"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    index_N = torch.arange(NUM_SAMPLES)
    x_N3 = torch.stack([index_N / 48, (index_N / 7).sin(), (index_N / 5).cos()], dim=1).double()
    y_N1 = x_N3.square().sum(dim=1, keepdim=True)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    model = run.model(layers)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    for step, (index_B, x_B3, y_B1) in run.steps((index_N, x_N3, y_N1), batch_size=12, epochs=30):
        losses_B1 = (model(x_B3) - y_B1).square()
        loss = losses_B1.mean()
        run.backward(loss)
        optimizer.step()
        entry = {
            "kind": "step",
            "step": step,
            "epoch": run.epoch,
            "workers": int(os.environ["WORLD_SIZE"]),
            "samples": index_B.tolist(),
            "loss": losses_B1.detach().sum().item(),
        }
        os.write(book, (json.dumps(entry) + "\n").encode())
        time.sleep(run.config["step_seconds"])
