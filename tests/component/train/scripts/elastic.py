"""Trains a small network in double precision, in parts on other ranks, and writes what it leaves.

    elastic.py ours <optimizer> <mutation> [<stop at>]
    elastic.py reference <optimizer> <a phase: replicas, last step> ...

`reference` is plain torch in one process: as many replicas in each phase as told, which take their
shares of each batch and, as the sync in the description says, become their mean every few steps.
Each writes parameters.json, and ours a line per sample to used-<rank>.jsonl.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from trainmaster import train
from trainmaster._order import Cursor, order_keys, share_of, shuffled
from trainmaster.run import current_run
from trainmaster.train import snapshot
from trainmaster.train.inner import plan, shard
from trainmaster.train.outer.joined import Joined

SEED, EPOCHS, SIZE, BATCH = 3, 3, 96, 12  # eight steps an epoch, even shares for two and three
MODE, OPTIMIZER = sys.argv[1], sys.argv[2]
shard.BLOCK_BYTES_MIN = 200  # so that each layer is sharded by itself


class Network(nn.Module):
    train_plan = plan(tensor={"blocks.*.0": "column", "blocks.*.2": "row"}, pipeline=["blocks"])

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, out)) for out in (8, 3)
        ).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
    if OPTIMIZER == "adamw":
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    return torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01)


def make_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SIZE, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (SIZE,), generator=generator)


def write(state: dict[str, torch.Tensor]) -> None:
    flat = torch.cat([state[name].reshape(-1) for name in sorted(state)])
    Path("parameters.json").write_text(json.dumps(flat.tolist()))


def iter_batches() -> Any:
    for epoch in range(EPOCHS):
        keys = order_keys(SEED, epoch)
        yield from torch.tensor([shuffled(at, SIZE, keys) for at in range(SIZE)]).split(BATCH)


class Meeting:
    """What replicas become every few steps: an anchor, moved by the mean of how far they went."""

    def __init__(self, network: nn.Module, sync: dict[str, Any]) -> None:
        self.every = sync["every"]
        self.anchor = copy.deepcopy(network)
        is_diloco = sync["mode"] == "diloco"
        lr, momentum = (sync["outer_lr"], sync["outer_momentum"]) if is_diloco else (1.0, 0.0)
        self.outer = torch.optim.SGD(
            self.anchor.parameters(), lr=lr, momentum=momentum, nesterov=is_diloco
        )

    def meet(self, replicas: list[nn.Module]) -> None:
        own = [list(each.parameters()) for each in replicas]
        for number, center in enumerate(self.anchor.parameters()):
            center.grad = center.detach() - sum(each[number].detach() for each in own) / len(own)
        self.outer.step()
        for each in replicas:
            each.load_state_dict(self.anchor.state_dict())


def train_reference(phases: list[tuple[int, int]]) -> None:
    x, y = make_data()
    sync = current_run().description.get("sync") or {}
    replicas: list[nn.Module] = [Network()]
    meeting = Meeting(replicas[0], sync) if "every" in sync else None
    optimizers = [make_optimizer(replicas[0].parameters())]
    for step, rows in enumerate(iter_batches(), 1):
        count = next(count for count, last in phases if step <= last)
        if count != len(replicas):
            replicas = [copy.deepcopy(replicas[0]) for _ in range(count)]
            optimizers = [make_optimizer(each.parameters()) for each in replicas]
        for number in range(count):
            network, optimizer = replicas[number], optimizers[number]
            mine = rows[list(share_of(len(rows), number, count))]
            optimizer.zero_grad()
            functional.cross_entropy(network(x[mine]), y[mine]).backward()
            optimizer.step()
        if meeting is not None and step % meeting.every == 0:
            meeting.meet(replicas)
    write(replicas[0].state_dict())


def train_ours(stop: int) -> None:
    x_all, y_all = make_data()
    with train.start(seed=SEED) as run:
        network = Network()
        model = run.model(network)
        optimizer = run.optimizer(make_optimizer(model.parameters()))
        ledger = Path(f"used-{run.rank}.jsonl")
        is_head = run._synchronization.layout.is_share_head(run.rank)
        dataset = (x_all, y_all, torch.arange(SIZE))
        for step, (x, y, samples) in run.steps(dataset, batch_size=BATCH, epochs=EPOCHS):
            loss = run.forward_backward(model, x, y, functional.cross_entropy)
            optimizer.step()
            run.log(loss=loss)
            if is_head:
                with ledger.open("a") as lines:
                    for sample in samples[: run.num_samples].tolist():
                        lines.write(json.dumps([run.epoch, sample]) + "\n")
            if step == stop:
                break
    if run.is_main:
        checkpoint = current_run().latest_checkpoint()
        assert checkpoint is not None
        write(load_file(checkpoint.path / "model.safetensors"))


def forget(*_arguments: Any, **_options: Any) -> None:
    """Do nothing, where something should have been done."""


def lose_a_batch(values: dict[str, Any]) -> Cursor:
    position = min(SIZE, values["position"] + BATCH)
    return Cursor(**{**values, "position": position, "order": tuple(values["order"])})


MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "the optimizer starts anew": (snapshot.Resumed, "load_optimizer", forget),
    "the loader skips a batch": (Cursor, "from_dict", lose_a_batch),
    "what the servers held is lost": (Joined, "load_state_dict", forget),
}

if MODE == "reference":
    pairs = [phase.split(",") for phase in sys.argv[3:]]
    train_reference([(int(count), int(last)) for count, last in pairs])
else:
    if sys.argv[3] != "none":
        setattr(*MUTATIONS[sys.argv[3]])
    train_ours(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
