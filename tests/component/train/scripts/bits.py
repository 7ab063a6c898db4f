"""Trains with everything that a resume could get wrong, and prints the hash of what it leaves.

    bits.py <mutation> <stop at> <kill at>

Dropout, noise from three generators, momentum, a scheduler, two loops over the data and an uneven
last batch. `stop at` breaks off with a checkpoint, `kill at` dies without a word; 0 is never.
"""

import hashlib
import os
import random
import signal
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trainmaster import train
from trainmaster._order import Cursor
from trainmaster.run import current_run
from trainmaster.train import allreduce, randomness, snapshot

MUTATION, STOP, KILL = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SIZE, BATCH = 150, 16  # ten steps an epoch


def forget(*_arguments: Any, **_options: Any) -> None:
    """Do nothing, where something should have been done."""


def from_the_start(_values: Any) -> Cursor:
    return Cursor(step=12)


MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "generators start anew": (randomness, "restore", forget),
    "the optimizer starts anew": (snapshot.Resumed, "load_optimizer", forget),
    "the scheduler starts anew": (snapshot.Resumed, "load_kept", forget),
    "the weights start anew": (snapshot.Resumed, "load_model", forget),
    "the data starts anew": (Cursor, "from_dict", from_the_start),
    "torch lays out its buckets when it likes": (allreduce, "_settle_buckets", forget),
}
if MUTATION != "none":
    setattr(*MUTATIONS[MUTATION])


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 200),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(200, 90),
        nn.ReLU(),
        nn.Linear(90, 3),
    )


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SIZE, 12, generator=generator)
    return x, torch.randint(0, 3, (SIZE,), generator=generator)


with train.start(seed=4) as run:
    network = make_network()
    model = run.model(network)
    optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=0.01))
    scheduler = run.scheduler(torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.8))
    for epochs in (2, 1):
        for step, (x, y) in run.steps(make_data(), batch_size=BATCH, epochs=epochs):
            noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1)) + torch.randn(()) * 0.1
            loss = functional.cross_entropy(model(x + noise), y)
            run.backward(loss)
            optimizer.step()
            scheduler.step()
            run.log(loss=loss)
            if step == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == STOP:
                break
        if run.step == STOP:
            break

if run.is_main:
    checkpoint = current_run().latest_checkpoint()
    assert checkpoint is not None
    for name in ("model.safetensors", "state.pt"):
        print(name, hashlib.sha256((checkpoint.path / name).read_bytes()).hexdigest(), flush=True)
