"""Trains a network of some 50 MB spread over ranks and prints `peak <MiB>`: what it took at most.

memory.py '{"data": 1, ...}'
"""

import ctypes
import json
import re
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from trainmaster._layout import Layout
from trainmaster.train.inner import InnerGroup, plan

WIDTH, BLOCKS = 640, 16


class Net(nn.Module):
    train_plan = plan(tensor={"blocks.*.0": "column", "blocks.*.2": "row"}, pipeline=["blocks"])

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def resident_mib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what is freed is given back
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layout = Layout.from_description(json.loads(sys.argv[1]), dist.get_world_size())
    inner = InnerGroup(layout, rank, torch.device("cpu"))
    before = resident_mib("VmRSS")
    network = Net()
    model = inner.wrap(network)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(4, WIDTH)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
    for _ in range(3):
        optimizer.zero_grad()
        inner.forward_backward(model, x, x, nn.functional.mse_loss)
        optimizer.step()
    print("peak", resident_mib("VmHWM") - before)
    dist.barrier()
    dist.destroy_process_group()


main()
