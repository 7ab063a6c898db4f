"""Trains until it is told to stop: endless.py <seconds per step>. Says what it sees."""

import sys
import time

import torch
from torch import nn

from trainmaster import train

PAUSE_S = float(sys.argv[1])

with train.start() as run:
    model = run.model(nn.Linear(4, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    for step, (x,) in run.steps((torch.ones(64, 4),), batch_size=8, epochs=10**6):
        time.sleep(PAUSE_S)
        loss = model(x).square().mean()
        run.backward(loss)
        optimizer.step()
        run.log(loss=loss)
        if step == 3:
            print("begun yes", flush=True)
    print("stopped", run.step, run.is_stopped, flush=True)
    for _ in run.steps((torch.ones(64, 4),), epochs=1):
        print("went on", flush=True)
