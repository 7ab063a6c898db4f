"""Trains with everything that a resume could get wrong, and prints the hash of what it leaves.

    bits.py <mutation> <stop at> <kill at> [<spot> <victim>]

Dropout, noise from three generators, momentum, a scheduler, two loops over the data and an uneven
last batch. `stop at` breaks off with a checkpoint, `kill at` dies without a word; 0 is never.
Where it dies is the spot: one in that step, on every rank or on the victim alone, or one in the
first save from there on, on rank 0. With `in_one_call` in its config, it computes loss and
gradients in one call, as the stages of a pipeline need it.
"""

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trainmaster import train
from trainmaster._order import Cursor
from trainmaster.run import Run, current_run
from trainmaster.train import allreduce, randomness, saver, snapshot
from trainmaster.train.inner import plan
from trainmaster.train.outer.joined import Joined

MUTATION, STOP, KILL = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SPOT = sys.argv[4] if len(sys.argv) > 4 else "logged"
VICTIM = sys.argv[5] if len(sys.argv) > 5 else "all"
SIZE, BATCH = 150, 16  # ten steps an epoch


def forget(*_arguments: Any, **_options: Any) -> None:
    """Do nothing, where something should have been done."""


def from_the_start(_values: Any) -> Cursor:
    return Cursor(step=12)


def lose_a_batch(values: dict[str, Any]) -> Cursor:
    values = {**values, "order": tuple(values["order"])}
    return Cursor(**{**values, "position": min(SIZE, values["position"] + BATCH)})


def lose_residuals(self: Joined, states: Any) -> None:
    load_joined(self, states)
    assert self._saved_mine.pop("residuals")


load_joined = Joined.load_state_dict
MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "generators start anew": (randomness, "restore", forget),
    "the optimizer starts anew": (snapshot.Resumed, "load_optimizer", forget),
    "the scheduler starts anew": (snapshot.Resumed, "load_kept", forget),
    "the weights start anew": (snapshot.Resumed, "load_model", forget),
    "the data starts anew": (Cursor, "from_dict", from_the_start),
    "the loader skips a batch": (Cursor, "from_dict", lose_a_batch),
    "residuals are lost": (Joined, "load_state_dict", lose_residuals),
    "torch lays out its buckets when it likes": (allreduce, "_settle_buckets", forget),
}
if MUTATION != "none":
    setattr(*MUTATIONS[MUTATION])


class Network(nn.Module):
    train_plan = plan(tensor={"layers.0": "column", "layers.3": "row"}, pipeline=["layers"])

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 200),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(200, 90),
            nn.ReLU(),
            nn.Linear(90, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SIZE, 12, generator=generator)
    return x, torch.randint(0, 3, (SIZE,), generator=generator)


def pass_by(spot: str) -> None:
    """Die here, if it is the time and the place."""
    if run.step == KILL and spot == SPOT and VICTIM in ("all", str(run.rank)):
        os.kill(os.getpid(), signal.SIGKILL)


def die_once_saved(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of saving that is the last thing this process does."""

    def save(*arguments: Any, **more: Any) -> Any:
        result = plain(*arguments, **more)
        if run.step >= KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return save


def write_late(taken: snapshot.Snapshot, folder: Any) -> None:
    """Write a checkpoint when training has gone on, which must not change what it holds."""
    deadline_s = time.monotonic() + 0.2
    while run.step < taken.meta["step"] + 4 and time.monotonic() < deadline_s:
        time.sleep(0.001)
    time.sleep(0.01)
    write_snapshot(taken, folder)


write_snapshot = snapshot.write_snapshot
setattr(saver, "write_snapshot", write_late)  # noqa: B010  mypy takes it for a name of its own
IN_A_SAVE: dict[str, tuple[Any, str]] = {
    "half written": (snapshot, "save_file"),
    "not committed": (saver, "write_snapshot"),
    "committed": (Run, "commit_checkpoint"),
}
if KILL and SPOT in IN_A_SAVE:
    owner, function = IN_A_SAVE[SPOT]
    setattr(owner, function, die_once_saved(getattr(owner, function)))

with train.start(seed=4) as run:
    print("resumed", run.step, flush=True)
    network = Network()
    model = run.model(network)
    optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=0.01))
    scheduler = run.scheduler(torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.8))
    for epochs in (2, 1):
        for step, (x, y) in run.steps(make_data(), batch_size=BATCH, epochs=epochs):
            noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1)) + torch.randn(()) * 0.1
            pass_by("drawn")
            if run.config.get("in_one_call"):
                loss = run.forward_backward(model, x + noise, y, functional.cross_entropy)
            else:
                loss = functional.cross_entropy(model(x + noise), y)
                pass_by("forward")
                run.backward(loss)
            pass_by("backward")
            optimizer.step()
            pass_by("stepped")
            scheduler.step()
            run.log(loss=loss)
            pass_by("logged")
            if step == STOP:
                break
        if run.step == STOP:
            break

if run.is_main:
    checkpoint = current_run().latest_checkpoint()
    assert checkpoint is not None
    for name in ("model.safetensors", "state.pt"):
        print(name, hashlib.sha256((checkpoint.path / name).read_bytes()).hexdigest(), flush=True)
