"""A training with shuffling, dropout, momentum and an uneven last batch; logs each loss."""

import torch
from torch import nn
from torch.nn import functional

from trainmaster import train

with train.start(seed=3) as run:
    generator = torch.Generator().manual_seed(0)
    x_NF = torch.randn(150, 8, generator=generator)
    y_N = (x_NF.sum(1) > 0).long()
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    for _, (x, y) in run.steps((x_NF, y_N), batch_size=16, epochs=3):
        loss = functional.cross_entropy(model(x), y)
        run.backward(loss)
        optimizer.step()
        run.log(loss=loss)
