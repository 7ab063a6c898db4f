"""Trains a small network in double precision and writes its parameters to parameters.json.

    equivalence.py ours|reference <optimizer> <samples> <batch size> [<mutation> [<stop at>]]

`reference` is plain torch in one process on the whole global batch. A mutation is a mistake that
the comparison must catch.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainmaster import train
from trainmaster._order import order_keys, shuffled
from trainmaster.train.allreduce import Allreduce

SEED, EPOCHS = 3, 3
MODE, OPTIMIZER, SIZE, BATCH = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
MUTATION = sys.argv[5] if len(sys.argv) > 5 else "none"
STOP = int(sys.argv[6]) if len(sys.argv) > 6 else None


def make_network() -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
    if OPTIMIZER == "adamw":
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    momentum = 0.9 if OPTIMIZER == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=0.1, momentum=momentum, weight_decay=0.01)


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SIZE, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (SIZE,), generator=generator)


class Recorded:
    """The data one sample at a time, with a ledger of which were taken by this rank."""

    def __init__(self, rank: int, run: train.TrainRun) -> None:
        self._x, self._y = make_data()
        self._ledger = Path(f"used-{rank}.jsonl")
        self._run = run

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Any:
        return self._x[index], self._y[index], index

    def used(self, indices: torch.Tensor) -> None:
        with self._ledger.open("a") as ledger:
            for index in indices[: self._run.num_samples].tolist():
                ledger.write(json.dumps([self._run.epoch, index]) + "\n")


def train_reference() -> nn.Module:
    x, y = make_data()
    network = make_network()
    optimizer = make_optimizer(network.parameters())
    for epoch in range(EPOCHS):
        keys = order_keys(SEED, epoch)
        order = torch.tensor([shuffled(position, SIZE, keys) for position in range(SIZE)])
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    return network


def train_ours() -> nn.Module:
    network = make_network()
    with train.start(seed=SEED) as run:
        model = run.model(network)
        optimizer = run.optimizer(make_optimizer(model.parameters()))
        dataset = Recorded(run.rank, run)
        for step, (x, y, indices) in run.steps(dataset, batch_size=BATCH, epochs=EPOCHS):
            loss = functional.cross_entropy(model(x), y)
            run.backward(loss)
            optimizer.step()
            run.log(loss=loss)
            dataset.used(indices)
            if step == STOP:
                break
    return network


def weigh_equally(_self: Any, loss: torch.Tensor, *_counts: int) -> torch.Tensor:
    return loss


def add_up(self: Any, loss: torch.Tensor, *counts: int) -> torch.Tensor:
    return plain_weigh(self, loss, *counts) * 2


def stay_apart(_self: Any, _name: str, _bare: Any, module: nn.Module, **_options: Any) -> nn.Module:
    return module


plain_weigh = Allreduce.weigh
MUTATIONS: dict[str, tuple[str, Any]] = {
    "every share counts the same": ("weigh", weigh_equally),
    "gradients are added, not averaged": ("weigh", add_up),
    "gradients stay where they are": ("wrap", stay_apart),
}
if MUTATION != "none":
    setattr(Allreduce, *MUTATIONS[MUTATION])

network = train_ours() if MODE == "ours" else train_reference()
if not Path("parameters.json").exists():
    flat = torch.cat([each.detach().reshape(-1) for each in network.parameters()])
    Path("parameters.json").write_text(json.dumps(flat.tolist()))
