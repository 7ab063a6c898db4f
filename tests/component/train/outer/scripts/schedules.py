"""Trains through a session with a rate of 1 / (1 + steps of the schedule), telling step and rate.

schedules.py '{"steps": 200, "step_s": 0.01}'

The schedule goes on from the rate that it finds in the optimizer, as many do.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch.nn import functional
from torch.optim import lr_scheduler

from trainmaster import train

settings = json.loads(sys.argv[1])


class Tally:
    """Counts steps in a tensor, and in a Counter, as torch's own schedules do."""

    def __init__(self) -> None:
        self.seen, self.kinds = torch.zeros(3), Counter[str]()

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "kinds": self.kinds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.kinds = state["seen"], state["kinds"]


torch.manual_seed(0)
x = torch.arange(120 * 8, dtype=torch.float32).remainder(7.0).view(120, 8)
y = x.sum(dim=1).long().remainder(3)
with train.start(seed=1) as run:
    network = torch.nn.Linear(8, 3)
    model = run.model(network)
    optimizer = run.optimizer(torch.optim.SGD(network.parameters(), lr=1.0))
    # times 1/2, 2/3, 3/4, ...
    falling = run.scheduler(lr_scheduler.MultiplicativeLR(optimizer, lambda n: n / (n + 1)))
    tally = run.keep("tally", Tally())
    epochs = settings.get("epochs")
    for step, (inputs, labels) in run.steps(
        (x, y), batch_size=12, epochs=epochs, steps=settings.get("steps")
    ):
        run.backward(functional.cross_entropy(model(inputs), labels))
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        falling.step()
        tally.seen += 1
        tally.kinds["step"] += 1
        time.sleep(settings["step_s"])
        print("step", step, round(1 / rate), flush=True)
digest = hashlib.sha256()
for parameter in network.parameters():
    digest.update(parameter.detach().numpy().tobytes())
result = {
    "parameters": digest.hexdigest(),
    "steps": run.step,
    "tally": [*tally.seen.tolist(), tally.kinds.most_common(1)[0][1]],
    "scheduled": falling.last_epoch,
}
print("done", json.dumps(result), flush=True)
