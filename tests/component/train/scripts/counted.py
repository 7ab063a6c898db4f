"""Communicates in every way that torch has, and prints what the ledger says of it.

counted.py <case> <1: count, 0: leave torch alone>
"""

import hashlib
import json
import sys
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from trainmaster._communication import predict
from trainmaster._layout import Layout
from trainmaster.train.accounting.account import measure
from trainmaster.train.accounting.groups import count_collectives

CASE, IS_COUNTED = sys.argv[1], sys.argv[2] == "1"
STEPS, BATCH, WIDTH = 5, 24, 96
# Names that torch 2.13 gave others to; the old ones are there as long as 2.11 is supported.
warnings.simplefilter("ignore", FutureWarning)
WORLD = "activations" if CASE == "tensor parallel" else "other"
ledger = count_collectives(WORLD) if IS_COUNTED else None
dist.init_process_group("gloo")
RANK, RANKS = dist.get_rank(), dist.get_world_size()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.Linear(WIDTH, WIDTH))


def train_steps(model: nn.Module, parameters: Any, *, late_rank: int | None = None) -> None:
    """Take steps; rank `late_rank` is late for each by a tenth of a second."""
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    generator = torch.Generator().manual_seed(7 + RANK)
    for _ in range(STEPS):
        optimizer.zero_grad()
        x = torch.randn(BATCH // RANKS, WIDTH, generator=generator)
        if late_rank == RANK:
            time.sleep(0.1)
        model(x).square().mean().backward()
        optimizer.step()


def hash_of(network: nn.Module) -> str:
    parts = [each.detach().numpy().tobytes() for each in network.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def data_parallel() -> dict[str, Any]:
    network = make_network()
    model = nn.parallel.DistributedDataParallel(network, bucket_cap_mb=0.1)
    train_steps(model, network.parameters())  # the first pass lays out the buckets anew
    before = ledger.totals() if ledger else None
    train_steps(model, network.parameters())
    said: dict[str, Any] = {"hash": hash_of(network)}
    if ledger and before:
        sent = ledger.totals().sent_bytes["gradients"] - before.sent_bytes["gradients"]
        said["sent"] = sent / STEPS
        expected = predict(
            measure([network]), Layout(data=RANKS), {}, backend="gloo", batch_size=BATCH
        )
        said["predicted"] = expected.bytes_per_step
    return said


def late() -> dict[str, Any]:
    network = make_network()
    model = nn.parallel.DistributedDataParallel(network)
    assert ledger
    train_steps(model, network.parameters())
    before = ledger.totals().exposed_s
    train_steps(model, network.parameters(), late_rank=RANKS - 1)
    return {"exposed_s": (ledger.totals().exposed_s - before) / STEPS}


def sharded() -> dict[str, Any]:
    assert ledger
    network = make_network()
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("shard",))
    for block in network[:2]:
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    before = ledger.totals()
    train_steps(network, network.parameters())
    after = ledger.totals().sent_bytes
    expected = predict(
        measure([network]), Layout(shard=RANKS), {}, backend="gloo", batch_size=BATCH
    )
    return {
        "sent": {
            phase: (after[phase] - before.sent_bytes.get(phase, 0)) / STEPS
            for phase in ("parameters", "gradients")
        },
        "predicted": expected.bytes_per_step,
    }


def tensor_parallel() -> dict[str, Any]:
    assert ledger
    network = make_network()[:2]
    mesh = init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("data", "tensor"))
    for block in network:
        parallelize_module(
            block, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()}
        )
    before = ledger.totals().sent_bytes.get("activations", 0)
    x = torch.randn(BATCH, WIDTH, requires_grad=True)
    network(x).square().mean().backward()
    return {"sent": ledger.totals().sent_bytes["activations"] - before}


def every_call() -> dict[str, Any]:
    """One of each; with the payload that the ledger should have for it."""
    assert ledger
    x, part = torch.ones(12 * RANKS), torch.ones(12)
    parts = list(x.clone().chunk(RANKS))
    calls: dict[str, Any] = {
        "all_reduce": lambda: dist.all_reduce(x),
        "all_reduce, functional": lambda: functional.all_reduce(x, "sum", dist.group.WORLD) + 0,
        "broadcast": lambda: dist.broadcast(x, 0),
        "all_gather": lambda: dist.all_gather(parts, part),
        "all_gather_single": lambda: dist.all_gather_into_tensor(x, part),
        "all_gather_single, functional": lambda: (
            functional.all_gather_tensor(part, 0, dist.group.WORLD) + 0
        ),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, x),
        "reduce_scatter, functional": lambda: (
            functional.reduce_scatter_tensor(x, "sum", 0, dist.group.WORLD) + 0
        ),
        "all_to_all": lambda: dist.all_to_all_single(torch.empty_like(x), x),
        "all_to_all, functional": lambda: (
            functional.all_to_all_single(x, None, None, dist.group.WORLD) + 0
        ),
        "gather": lambda: dist.gather(part, parts if RANK == 0 else None),
        "scatter": lambda: dist.scatter(part, parts if RANK == 0 else None),
        "send": lambda: dist.send(x, 1) if RANK == 0 else dist.recv(x, 0),
        "barrier": dist.barrier,
    }
    said = {}
    for name, call in calls.items():
        before = ledger.sums()
        call()
        new = {
            operation: each.payload_bytes - old.payload_bytes
            for (phase, operation), each in ledger.sums().items()
            for old in [before.get((phase, operation), type(each)())]
            if each.calls > old.calls
        }
        said[name] = new
    return said


CASES = {
    "data parallel": data_parallel,
    "late": late,
    "sharded": sharded,
    "tensor parallel": tensor_parallel,
    "every call": every_call,
}
print("said", json.dumps(CASES[CASE]()), flush=True)
dist.destroy_process_group()
