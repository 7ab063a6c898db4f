"""Trains a model of two tensors with two optimizers, or refuses: what a rank says at its end.

few_tensors.py '{"optimizer": "SGD", "scaler": false, "unfreezes": false, "adds_group": false}'
"""

import json
import sys

import torch
from torch.nn import functional

from trainmaster import train
from trainmaster.run import RunError

settings = json.loads(sys.argv[1])
torch.manual_seed(0)
x = torch.randn(24, 6, dtype=torch.float64)
y = x.sum(dim=1).gt(0).long()
try:
    with train.start(seed=1) as run:
        network = torch.nn.Sequential(
            torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 2, bias=False)
        ).double()
        if settings.get("unfreezes"):
            network[0].weight.requires_grad_(False)
        model = run.model(network)
        kind = getattr(torch.optim, settings.get("optimizer", "SGD"))
        if settings.get("scaler"):
            run.scaler(torch.amp.GradScaler("cpu"))
        optimizers = [
            run.optimizer(kind(each.parameters(), lr=0.05), name=str(number))
            for number, each in enumerate(network)
        ]
        for step, (inputs, labels) in run.steps((x, y), batch_size=8, epochs=2):
            if settings.get("unfreezes") and step == 2:
                network[0].weight.requires_grad_(True)
            run.backward(functional.cross_entropy(model(inputs), labels))
            if settings.get("adds_group") and step == 2:
                optimizers[0].add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
            for each in optimizers:
                each.step()
                each.zero_grad()
        print("values", json.dumps([each.tolist() for each in network.parameters()]), flush=True)
except (RunError, ValueError) as error:
    print("refused", error, flush=True)
