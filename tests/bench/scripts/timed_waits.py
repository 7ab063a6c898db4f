"""Steps whose computation is a wait; the last rank waits longer. Writes when each was done.

timed_waits.py <result> <samples> <seconds of a step> <times slower>
"""

import json
import sys
import time
from pathlib import Path

import torch

from trainmaster import train

RESULT, SAMPLES = sys.argv[1], int(sys.argv[2])
STEP_S, SLOWER = float(sys.argv[3]), int(sys.argv[4])
PER_WORKER = 8

with train.start(seed=1) as run:
    model = run.model(torch.nn.Linear(64, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=1e-3))
    x, y = torch.randn(SAMPLES, 64), torch.randn(SAMPLES, 1)
    wait_s = STEP_S * (SLOWER if run.rank == run.world_size - 1 else 1)
    began_s, steps = 0.0, []
    for _, (inputs, targets) in run.steps((x, y), batch_size=PER_WORKER * run.world_size, epochs=1):
        began_s = began_s or time.monotonic()
        deadline_s = time.monotonic() + wait_s
        run.backward((model(inputs) - targets).square().mean())
        time.sleep(max(0.0, deadline_s - time.monotonic()))
        optimizer.step()
        steps.append((time.monotonic(), run.num_samples))
    Path(f"{RESULT}.{run.rank}").write_text(json.dumps({"began_s": began_s, "steps": steps}))
