"""Trains until something is no number any more.

    diverges.py <what> <rank> <step>

`what`: "loss" makes the loss NaN, "gradient" leaves the loss and ruins the gradient, on that rank
at that step; checkpoints are made at every second step, as the description says.
"""

import sys

import torch
from torch.nn import functional

from trainmaster import train

WHAT, RANK, STEP = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

x_all = torch.ones(40, 2)
with train.start() as run:
    net = torch.nn.Linear(2, 1)
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    for step, x in run.steps((x_all,), batch_size=4, shuffle=False):
        loss = functional.mse_loss(model(x[0]), torch.zeros(len(x[0]), 1))
        if (run.rank, step) == (RANK, STEP) and WHAT == "loss":
            loss = loss * float("nan")
        run.backward(loss)
        if step == STEP and WHAT == "gradient":
            net.weight.grad.fill_(float("nan"))
        optimizer.step()
        run.log(loss=loss if WHAT == "loss" else 1.0)
    print("went on to the end", flush=True)
