"""Trains through a session and tells what each rank has at its beginning and at its end.

sessions.py '{"steps": 20, "break_at": null, "leaves": null, "die_at": null, "victim": null,
              "pause_s": 0.0}'

`break_at` leaves the loop at the first step from there on, on the rank `leaves` or on all; the
victim kills itself at `die_at`.
"""

import hashlib
import json
import os
import signal
import sys
import time

import torch
from torch.nn import functional

from trainmaster import train

settings = json.loads(sys.argv[1])


def fingerprint(tensors: list[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def momenta(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = [optimizer.state[each] for each in network.parameters()]
    return [state["momentum_buffer"] for state in states if "momentum_buffer" in state]


torch.manual_seed(0)
x = torch.arange(120 * 8, dtype=torch.float32).remainder(7.0).view(120, 8)
y = x.sum(dim=1).long().remainder(3)
used: list[int] = []
with train.start(seed=1) as run:
    network = torch.nn.Linear(8, 3)
    model = run.model(network)
    optimizer = run.optimizer(torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9))
    print("found", fingerprint(momenta(optimizer)), flush=True)
    for step, (rows, inputs, labels) in run.steps(
        (torch.arange(120), x, y),
        batch_size=12,
        epochs=settings.get("epochs", 2),
        steps=settings["steps"],
    ):
        used += rows.tolist()
        loss = functional.cross_entropy(model(inputs), labels)
        run.backward(loss)
        optimizer.step()
        time.sleep(settings.get("pause_s", 0.0) * run.rank)
        if step == settings.get("die_at") and run.rank == settings["victim"]:
            os.kill(os.getpid(), signal.SIGKILL)
        is_leaving = settings.get("leaves") in (None, run.rank)
        if is_leaving and step >= (settings.get("break_at") or step + 1):
            print("leaves", step, flush=True)
            break
    print("counted", int(run.sum(torch.ones(1))), flush=True)
    print("evaluated", fingerprint(list(network.parameters())), flush=True)
print("left", fingerprint(momenta(optimizer)), flush=True)
print("at", run.step, flush=True)
print("used", json.dumps(used), flush=True)
