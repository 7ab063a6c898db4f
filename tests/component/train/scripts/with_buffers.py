"""Trains a network with running statistics, and tells this rank's test accuracy over all shares."""

import torch
from torch import nn
from torch.nn import functional

from trainmaster import train

x_all = torch.randn(240, 10, generator=torch.Generator().manual_seed(0))
y_all = (x_all.sum(1) > 0).long()

with train.start(seed=0) as run:
    net = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _step, (x, y) in run.steps((x_all[:200], y_all[:200]), batch_size=20, epochs=3):
        run.backward(functional.cross_entropy(model(x), y))
        optimizer.step()
    net.eval()
    counted = torch.zeros(2)
    with torch.no_grad():
        for rows in run.slices(40, 8):
            found = net(x_all[200:][rows]).argmax(1)
            counted += torch.tensor([(found == y_all[200:][rows]).sum(), len(found)])
    correct, seen = run.sum(counted).tolist()
    print("seen", seen, flush=True)
    print("accuracy", correct / seen, flush=True)
