"""Steps of an ordinary training with `trainmaster.train`, and the CPU time that they took.

    torchrun --standalone --nproc-per-node 2 steps.py RESULT STEPS BATCH

Each rank writes RESULT.<rank>: CPU and wall seconds from the end of step 5 to the end of the last.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from trainmaster import train

UNMEASURED_STEPS = 5
WIDTH = 512


def main(result: Path, steps: int, batch: int) -> None:
    """Train a small network on noise."""
    torch.set_num_threads(1)
    chance = torch.Generator().manual_seed(0)
    x_all = torch.randn(batch * 4, WIDTH, generator=chance)
    y_all = torch.randint(0, 10, (batch * 4,), generator=chance)
    cpu_s = wall_s = 0.0
    with train.start() as run:
        net = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.ReLU(),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.ReLU(),
            torch.nn.Linear(WIDTH, 10),
        )
        model = run.model(net)
        optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=1e-3))
        for step, (x, y) in run.steps((x_all, y_all), batch_size=batch, steps=steps):
            loss = F.cross_entropy(model(x), y)
            run.backward(loss)
            optimizer.step()
            run.log(loss=loss)
            if step == UNMEASURED_STEPS:
                cpu_s, wall_s = time.process_time(), time.perf_counter()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        measured = {"cpu_s": cpu_s, "wall_s": wall_s, "steps": steps - UNMEASURED_STEPS}
        result.with_name(f"{result.name}.{run.rank}").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
