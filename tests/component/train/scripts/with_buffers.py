"""Trains a network with running statistics, and tells this rank's test accuracy over all shares.

    with_buffers.py [mutation]

It also tells the hash of the statistics that each step of this rank began with.
"""

import functools
import hashlib
import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainmaster import train
from trainmaster.train import allreduce

if "buffers stay apart" in sys.argv:
    apart = functools.partial(nn.parallel.DistributedDataParallel, broadcast_buffers=False)
    setattr(allreduce, "DistributedDataParallel", apart)  # noqa: B010  mypy takes it for a type
begun_with = hashlib.sha256()


def note(module: nn.Module, _inputs: Any) -> None:
    if module.training:
        begun_with.update(module.running_mean.numpy().tobytes())


x_all = torch.randn(240, 10, generator=torch.Generator().manual_seed(0))
y_all = (x_all.sum(1) > 0).long()

with train.start(seed=0) as run:
    net = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    net[1].register_forward_pre_hook(note)
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _step, (x, y) in run.steps((x_all[:200], y_all[:200]), batch_size=20, epochs=3):
        run.backward(functional.cross_entropy(model(x), y))
        optimizer.step()
    print("begun", begun_with.hexdigest(), flush=True)
    net.eval()
    counted = torch.zeros(2)
    with torch.no_grad():
        for rows in run.slices(40, 8):
            found = net(x_all[200:][rows]).argmax(1)
            counted += torch.tensor([(found == y_all[200:][rows]).sum(), len(found)])
    correct, seen = run.sum(counted).tolist()
    print("seen", seen, flush=True)
    print("accuracy", correct / seen, flush=True)
