"""Two ranks of plain torch.distributed, up to the first step. Knows nothing of Trainmaster.

    torchrun --standalone --nproc-per-node 2 first_step.py MARKS

Rank 0 writes to MARKS when it came where, in Unix seconds.
"""

import time

began_at = time.time()

import json  # noqa: E402  the clock starts first
import os  # noqa: E402  the clock starts first
import sys  # noqa: E402  the clock starts first
from pathlib import Path  # noqa: E402  the clock starts first

import torch  # noqa: E402  the clock starts first
import torch.distributed as dist  # noqa: E402  the clock starts first
from torch.nn import functional as F  # noqa: E402  the clock starts first
from torch.nn.parallel import DistributedDataParallel  # noqa: E402  the clock starts first


def main(marks: Path) -> None:
    """Join, take one step, say when."""
    imported_at = time.time()
    dist.init_process_group("gloo")
    joined_at = time.time()
    torch.manual_seed(dist.get_rank())
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    stepped_at = time.time()
    if dist.get_rank() == 0:
        part = marks.with_suffix(".part")
        part.write_text(
            json.dumps(
                {
                    "began_at": began_at,
                    "imported_at": imported_at,
                    "joined_at": joined_at,
                    "stepped_at": stepped_at,
                }
            )
        )
        os.replace(part, marks)  # noqa: PTH105  whoever waits for it must not see half of it
    # Out at once, when both are through: taking gloo's threads down while they still work now and
    # then aborts a rank, or blocks it for ever, in torch itself and under torchrun as well.
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
