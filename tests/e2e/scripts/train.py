"""A data-parallel loop on trainmaster.train; the same file runs under python and torchrun."""

import torch
import torch.nn.functional as F

from trainmaster import train

with train.start() as run:
    generator = torch.Generator().manual_seed(0)
    x_NF = torch.randn(256, 8, generator=generator)
    y_N = (x_NF.sum(1) > 0).long()
    model = run.model(torch.nn.Linear(8, 2))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=run.config.get("lr", 0.1)))
    epochs = run.config.get("epochs", 2)
    for step, (x, y) in run.steps((x_NF, y_N), batch_size=64, epochs=epochs):
        loss = F.cross_entropy(model(x), y)
        run.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=loss)
