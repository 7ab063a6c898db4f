"""Trains with a gradient scaler; prints its scale at the end, which a step that was skipped halves.

with_scaler.py
"""

import torch
from torch import nn

from trainmaster import train

with train.start(seed=2) as run:
    model = run.model(nn.Linear(4, 2))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    scaler = run.scaler(torch.amp.GradScaler("cpu", init_scale=1024.0))
    for step, (x,) in run.steps((torch.ones(64, 4),), batch_size=8):
        loss = model(x).square().mean() * (float("inf") if step == 3 and run.rank == 1 else 1.0)
        run.backward(loss)
        scaler.step(optimizer)
        scaler.update()
    is_finite = all(bool(each.isfinite().all()) for each in model.parameters())
    print("scale", scaler.get_scale(), is_finite, flush=True)
