"""The loop that docs/in-a-job.md shows, with what it needs around it."""

import torch
import torch.nn.functional as F
from torch import nn

from trainmaster import train


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


generator = torch.Generator().manual_seed(0)
x_all = torch.randn(1000, 10, generator=generator)
dataset = (x_all, (x_all.sum(1) > 0).long())

# fmt: off
with train.start() as run:
    model = run.model(Net())                       # placed, wrapped or sharded as the spec says
    optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=run.config["lr"]))
    # deterministic order, resumes where it was
    for step, (x, y) in run.steps(dataset, batch_size=64):
        loss = F.cross_entropy(model(x), y)
        run.backward(loss)
        optimizer.step()
        run.log(loss=loss)                         # rank-aware, no sync point of its own
