"""Trains on samples that take their time to come, on one rank only.

slow_data.py <rank> <seconds> <steps>
"""

import sys
import time

import torch
from torch.nn import functional

from trainmaster import train

RANK, SECONDS, STEPS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])


class Samples:
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, number: int) -> torch.Tensor:
        if run.rank == RANK:
            time.sleep(SECONDS)
        return torch.ones(4) * number


with train.start() as run:
    net = torch.nn.Linear(4, 1)
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=1e-6))
    for step, x in run.steps(Samples(), batch_size=2 * run.world_size, steps=STEPS):
        time.sleep(0.01)
        loss = functional.mse_loss(model(x), torch.zeros(len(x), 1))
        run.backward(loss)
        optimizer.step()
        run.log(loss=loss)
print("end", time.monotonic(), flush=True)
